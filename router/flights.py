"""Requests on the short way: what those with one head share, and one of them while it is at a node."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from contracts.circuits import blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.lanes import Way
from router.node import Ending, Node
from runtime.links.http.exchanges import Body
from runtime.links.http.hot_routes import Turn
from runtime.links.http.replies import Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.wires import ENDED, TOO_LARGE, Wire


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
