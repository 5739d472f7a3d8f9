"""Requests on the short way: what those with one head share, and one of them while it is at a node."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

import msgspec

from contracts import headers
from contracts.circuits import blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.fields import Field
from router.node import Ending, Node
from router.readings import Told
from router.seeing.access_log import Kind
from runtime.links.access.grants import ANYBODY, Grant
from runtime.links.http.accounts import Tally
from runtime.links.http.exchanges import Body, Known, header_lines
from runtime.links.http.hot_routes import Turn
from runtime.links.http.replies import Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.upstream import Place
from runtime.links.http.wires import ENDED, TOO_LARGE, Pool, Wire

OWN = frozenset(name.lower() for name in (headers.TRACEPARENT, headers.IDEMPOTENCY_KEY))
"""Headers that each request has for itself, and that are sent on."""
_MOST_LANES = 1024


class Way:
    """What all requests with one head have in common: they ask on the terms `asked`, and are granted `terms`.

    `token` is the hash of the caller's; `lines` are the headers that all of them are sent on with, as they go over the
    wire. `names_itself`: their callers give them ids.
    """

    __slots__ = (
        "asked", "field", "grant", "kinds", "lanes", "lines", "model", "names_itself", "predicts", "request", "tallies",
        "terms", "token",
    )  # fmt: skip

    def __init__(self, request: Known, asked: Terms, field: Field, token: str) -> None:
        self.asked = asked
        self.request = request
        self.model = request.params["model"]
        self.predicts = request.target.startswith("/v1/predict/")
        self.token = token
        self.names_itself = headers.REQUEST_ID in request.headers
        self.tallies: dict[Told, Tally] = {}
        self.take(ANYBODY, asked, field)

    def take(self, grant: Grant, terms: Terms, field: Field) -> None:
        """From now on they are granted this."""
        self.grant = grant
        self.terms = terms
        self.field = field
        sent = headers.relayed(self.request.headers, headers.RELAYED_IN) | terms.claim()
        self.lines = header_lines({name: value for name, value in sent.items() if name.lower() not in OWN})
        self.lanes: dict[Node, Lane] = {}
        self.kinds: dict[Told, Kind] = {}

    def lane(self, node: Node, place: Place) -> Lane:
        """To a node that these requests did not go to before."""
        first = f"{self.request.method} {place.prefix}{self.request.target} HTTP/1.1\r\nHost: {place.host}\r\n"
        if len(self.lanes) >= _MOST_LANES:
            self.lanes.clear()
        lane = self.lanes[node] = Lane(place.pool, (first + self.lines).encode("utf-8", "surrogateescape"))
        return lane


class Lane(NamedTuple):
    """The way to one node: its connections, and what all heads begin with that go there."""

    pool: Pool
    head: bytes


class Begun(msgspec.Struct):
    """Since when a request is here, on which terms, and until when; from `began_s` on all of it is here."""

    arrived_s: float
    terms: Terms
    expires_at_s: float
    began_s: float

    @property
    def deadline(self) -> Deadline:
        return Deadline(self.expires_at_s)


class Watch(Protocol):
    """Hears what becomes of flights: one of these, once."""

    def answered(self, flight: Flight, reply: Reply | KnownReply) -> None: ...

    def failed(self, flight: Flight, error: FoothillError, ending: Ending) -> None: ...

    def stale(self, flight: Flight, *, sent: bool) -> None:
        """The connection had ended before it was asked; some of the request may be `sent`."""
        ...

    def gone(self, flight: Flight) -> None:
        """Its caller is."""
        ...


class Flight(msgspec.Struct, eq=False):
    """One request at one node: who waits on its wire, which was `used` before. It is in flight from `sent_s` on, until
    it has `ended`."""

    watch: Watch
    way: Way
    turn: Turn
    body: Body
    begun: Begun
    node: Node
    wire: Wire
    used: bool
    expected_ms: float
    allowed_ms: float
    sent_s: float = 0.0
    drawn: bool | None = None
    task: asyncio.Task[None] | None = None
    ended: bool = False

    def answered(self, reply: Reply | KnownReply) -> None:
        self.watch.answered(self, reply)

    def failed(self, reason: str, *, begun: bool, sent: bool) -> None:
        if self.used and not begun:
            self.watch.stale(self, sent=sent)
        elif reason == TOO_LARGE:
            self.watch.failed(self, self._told(f"{self.node.identity.url} answered too much."), self._blame())
        else:
            told = f"Node {self.node.name} cannot be reached ({reason}). Retry."
            self.watch.failed(self, self._told(told), "failed")

    def ended_early(self) -> FoothillError:
        return self._told(f"Node {self.node.name} cannot be reached ({ENDED}). Retry.")

    def late(self) -> None:
        ending = self._blame()
        if ending == "failed":
            self.wire.late()
        else:
            self.wire.give_up()
        error = FoothillError(
            "deadline_exceeded",
            f"{self.node.identity.url} did not answer within {self.allowed_ms:.0f} ms. "
            "Send a larger Foothill-Deadline-Ms, or ask a nearer node.",
        )
        self.watch.failed(self, error, ending)

    def give_up(self) -> None:
        """Its caller is gone."""
        self.watch.gone(self)

    def _blame(self) -> Ending:
        return "failed" if blames(self.allowed_ms, self.expected_ms) else "abandoned"

    @staticmethod
    def _told(message: str) -> FoothillError:
        return FoothillError("upstream_failed", message)
