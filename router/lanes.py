"""What requests on the short way have in common that have one head, and the ways from there to nodes."""

from __future__ import annotations

from typing import NamedTuple

from contracts import headers
from contracts.headers import Terms
from router.fields import Field
from router.node import Node
from router.said import Told
from router.seeing.access_log import Kind
from runtime.links.access.grants import ANYBODY, Grant
from runtime.links.http.exchanges import Known, header_lines
from runtime.links.http.upstream import Place
from runtime.links.http.wires import Pool
from runtime.links.process.telemetry import Tally

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
