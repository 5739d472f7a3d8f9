"""The HTTP client between hops: pooled, bounded, under a deadline, its failures named."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from ssl import SSLContext, create_default_context
from typing import NamedTuple

import msgspec
from multidict import CIMultiDict
from yarl import URL

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.http.bulk import Buffer
from runtime.links.http.exchanges import header_lines
from runtime.links.http.rendering import milliseconds
from runtime.links.http.replies import Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.spool import Spool
from runtime.links.http.wires import ENDED, TOO_LARGE, Origin, Pool, Wire
from runtime.links.process.alarm import Alarm
from runtime.links.process.within import within

MAX_BODY_BYTES = 64 << 20
CONNECT_TIMEOUT_S = 2.0
_CONNECTIONS_PER_ORIGIN = 256
_POOLS = 1024
_VISIBLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[A-Z]+")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", headers.DEADLINE_MS.lower()})
"""Headers that say how one hop sends, and until when: nobody else says them."""


class Request(msgspec.Struct, frozen=True):
    """One HTTP request. `path` starts with '/' and carries the query, both already percent-encoded. A body that lies on
    disk is its `spool`, and `body` is empty."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    spool: Spool | None = None

    @property
    def size(self) -> int:
        """Of the body, in bytes."""
        return len(self.body) if self.spool is None else len(self.spool)


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer. `headers` ignore case; `hop_ms` runs from the first byte sent to the last received. A body that
    lies on disk is its `spool`, and `body` is empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    hop_ms: float = 0.0
    spool: Spool | None = None

    @property
    def size(self) -> int:
        """Of the body, in bytes."""
        return len(self.body) if self.spool is None else len(self.spool)


def answer_of(reply: Reply | KnownReply, hop_ms: float) -> Answer:
    body = reply.body
    if isinstance(body, Spool):
        return Answer(reply.status, reply.headers, b"", hop_ms, body)
    return Answer(reply.status, reply.headers, bytes(body), hop_ms)


def _always() -> bool:
    return True


class UpstreamUnreachable(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """No answer came from `url`. `sent` tells whether bytes of the request may have reached it."""

    def __init__(self, url: str, *, sent: bool, reason: str) -> None:
        super().__init__(f"{url} gave no answer: {reason}")
        self.url = url
        self.sent = sent
        self.reason = reason


def answer_headers(given: Mapping[str, str]) -> Mapping[str, str]:
    """Headers that ignore case, for an Answer made in this process."""
    return CIMultiDict(given)


class Upstreams:
    """Connections to any number of upstreams, pooled by origin. Close it at the end.

    `connect_to` maps an origin `http://host:port` to the origin to connect to in its place, like curl's --connect-to.
    """

    def __init__(
        self,
        *,
        connect_to: Mapping[str, str] | None = None,
        ssl: SSLContext | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._connect_to = {_origin(URL(origin)): URL(target) for origin, target in (connect_to or {}).items()}
        self._ssl = ssl
        self._max_body_bytes = max_body_bytes
        self._connect_timeout_s = connect_timeout_s
        self._buffer = Buffer()
        self._idle: Alarm[Pool] = Alarm(Pool.close_idle)
        self._deadlines: Alarm[_Asking] = Alarm(_Asking.late)
        self._places: dict[str, Place] = {}
        self._pools: dict[Origin, Pool] = {}
        self._closed = False

    async def send(
        self,
        base_url: str,
        request: Request,
        *,
        deadline: Deadline,
        clock: Callable[[], float] = time.monotonic,
        spools: bool = False,
        may_retry: Callable[[], bool] = _always,
    ) -> Answer:
        """Any HTTP answer is an Answer; with `spools` a large one lies on disk.

        Raises UpstreamUnreachable, or FoothillError `deadline_exceeded` when time is up and `upstream_failed` for an
        answer over the limit. Cancelling the caller closes the connection. Where a pooled connection was closed by the
        upstream meanwhile, a new one is tried: at once if nothing was sent, else if there `may_retry`.
        """
        if self._closed:
            raise UpstreamUnreachable(base_url, sent=False, reason="this process stops")
        started_s = clock()
        deadline.check(started_s, f"{base_url} was asked")
        place = self.place(base_url)
        sending = _Sending(base_url, request, _head(place, request), deadline, clock, started_s, spools)
        wire = place.pool.take() or await self._open(place, sending)
        try:
            reply = await self._ask(wire, sending)
        except _Stale as stale:
            if stale.sent and not may_retry():
                raise UpstreamUnreachable(base_url, sent=True, reason=ENDED) from stale
            reply = await self._ask(await self._open(place, sending, fresh=True), sending)
        return answer_of(reply, (clock() - started_s) * 1000.0)

    async def close(self) -> None:
        """Whoever still waits is told that the process stops."""
        self._closed = True
        self._idle.stop()
        self._deadlines.stop()
        for pool in self._pools.values():
            pool.close()
        await asyncio.sleep(0)

    async def _open(self, place: Place, sending: _Sending, *, fresh: bool = False) -> Wire:
        left_s = sending.left_s()
        try:
            wire = await within(place.pool.open(fresh=fresh), min(left_s, self._connect_timeout_s))
            if self._closed:
                wire.close()
            return wire
        except asyncio.TimeoutError as error:
            if left_s <= self._connect_timeout_s:
                raise sending.late() from error
            reason = f"no connection within {self._connect_timeout_s:g} s"
            raise UpstreamUnreachable(sending.base_url, sent=False, reason=reason) from error
        except (OSError, ValueError) as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise UpstreamUnreachable(sending.base_url, sent=False, reason=reason) from error

    async def _ask(self, wire: Wire, sending: _Sending) -> Reply | KnownReply:
        used, asking = wire.used, _Asking(wire)
        left_s = sending.left_s()
        head = sending.head + f"{headers.DEADLINE_MS}: {milliseconds(left_s * 1000.0)}\r\n\r\n".encode()
        try:
            self._deadlines.set(asking, time.monotonic() + left_s)
            wire.ask(
                sending.request.method,
                head,
                sending.request.spool or sending.request.body,
                asking,
                spools=sending.spools,
            )
            return await asking.reply
        except _Late as error:
            raise sending.late() from error
        except _Broken as error:
            if error.large:
                told = f"{sending.base_url} answered more than {self._max_body_bytes} bytes."
                raise FoothillError("upstream_failed", told) from error
            if used and not error.begun and not self._closed:
                raise _Stale(sent=error.sent) from error
            raise UpstreamUnreachable(sending.base_url, sent=True, reason=str(error)) from error
        finally:
            self._deadlines.clear(asking)
            if not asking.over:
                wire.give_up()

    def doubt(self, base_url: str) -> None:
        """An upstream did not answer in time: connections that have nothing to do may be as dead as that one, and are
        closed."""
        if base_url in self._places:
            self._places[base_url].pool.close_idle(of_any_age=True)

    def place(self, base_url: str) -> Place:
        """Raises UpstreamUnreachable for what is no URL."""
        place = self._places.get(base_url)
        if place is None:
            place = self._places[base_url] = self._found(base_url)
        return place

    def _found(self, base_url: str) -> Place:
        try:
            asked = URL(base_url.rstrip("/"), encoded=True)
            url = self._connect_to.get(_origin(asked), asked)
            known = url.scheme in ("http", "https") and url.host and url.port
        except ValueError:
            known = False
        if not known or not url.host or not url.port:
            raise UpstreamUnreachable(base_url, sent=False, reason="it is no http:// or https:// URL")
        origin = Origin(url.host, url.port, self._context() if url.scheme == "https" else None)
        if len(self._pools) >= _POOLS:
            self._forget()
        if origin not in self._pools:
            self._pools[origin] = Pool(
                origin,
                self._buffer,
                max_body_bytes=self._max_body_bytes,
                limit=_CONNECTIONS_PER_ORIGIN,
                idle=self._idle,
            )
        return Place(
            self._pools[origin], asked.host_port_subcomponent or "", asked.raw_path if asked.raw_path != "/" else ""
        )

    def _forget(self) -> None:
        """Upstreams come and go, and nodes move."""
        self._pools = {origin: pool for origin, pool in self._pools.items() if not pool.empty}
        kept = {*map(id, self._pools.values())}
        self._places = {url: place for url, place in self._places.items() if id(place.pool) in kept}

    def _context(self) -> SSLContext:
        if self._ssl is None:
            self._ssl = create_default_context()
        return self._ssl


class Place(NamedTuple):
    """What a base URL comes to: its connections, and what requests to it say of it."""

    pool: Pool
    host: str
    prefix: str


class _Stale(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """A connection that was kept had ended before it was asked, or so it seems: some of the request may be `sent`."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the connection had ended")
        self.sent = sent


class _Late(Exception):  # noqa: N818 - as above
    """The deadline came first."""


class _Broken(Exception):  # noqa: N818 - as above
    def __init__(self, reason: str, *, begun: bool, sent: bool, large: bool) -> None:
        super().__init__(reason)
        self.begun = begun
        self.sent = sent
        self.large = large


class _Sending(NamedTuple):
    """One request on its way, over one connection or two. Its `head` lacks the deadline, and its end."""

    base_url: str
    request: Request
    head: bytes
    deadline: Deadline
    clock: Callable[[], float]
    started_s: float
    spools: bool

    def left_s(self) -> float:
        return self.deadline.left_s(self.clock())

    def late(self) -> FoothillError:
        return FoothillError(
            "deadline_exceeded",
            f"{self.base_url} did not answer within {self.deadline.left_ms(self.started_s):.0f} ms. "
            "Send a larger Foothill-Deadline-Ms, or ask a nearer node.",
        )


class _Asking:
    """Who waits for one answer on one connection. `over`: nothing more comes on it for him."""

    __slots__ = ("_wire", "over", "reply")

    def __init__(self, wire: Wire) -> None:
        self.reply: asyncio.Future[Reply | KnownReply] = asyncio.get_running_loop().create_future()
        self.over = False
        self._wire = wire

    def answered(self, reply: Reply | KnownReply) -> None:
        self.over = True
        if not self.reply.done():
            self.reply.set_result(reply)

    def failed(self, reason: str, *, begun: bool, sent: bool) -> None:
        self.over = True
        if not self.reply.done():
            self.reply.set_exception(_Broken(reason, begun=begun, sent=sent, large=reason == TOO_LARGE))

    def late(self) -> None:
        self._wire.give_up()
        self.over = True
        if not self.reply.done():
            self.reply.set_exception(_Late())


def _head(place: Place, request: Request) -> bytes:
    """Raises FoothillError `internal` for what would not be one request."""
    if not _VISIBLE.fullmatch(request.path) or not _TOKEN.fullmatch(request.method):
        raise FoothillError("internal", f"{request.method[:20]!r} {request.path[:80]!r} is no request.")
    sent = {name: value for name, value in request.headers.items() if name.lower() not in _OURS}
    if request.size or request.method not in ("GET", "HEAD"):
        sent["Content-Length"] = str(request.size)
    first = f"{request.method} {place.prefix}{request.path} HTTP/1.1\r\nHost: {place.host}\r\n"
    return (first + header_lines(sent)).encode("utf-8", "surrogateescape")


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port
