"""Connections to upstreams: one request at a time on each, kept open between them, and given up with whoever asked."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from typing import Final, NamedTuple, Protocol, cast

from aiohappyeyeballs import start_connection

from runtime.links.http.bulk import Buffer, Bulk
from runtime.links.http.exchanges import Body
from runtime.links.http.known_forms import Forms
from runtime.links.http.replies import BrokenReply, LargeReply, Reply
from runtime.links.http.reply_forms import KnownReply
from runtime.links.http.spool import SPOOLED_BYTES, Spool, Spooling
from runtime.links.process.alarm import Alarm

TOO_LARGE, ENDED = "too large", "the connection ended before the answer did"
"""Reasons: an answer has more bytes than are taken; there is none, or not all of it."""
NO_ROOM = "this server's disk does not take its answer"
_SMALL_BYTES: Final = 1 << 16
_IDLE_S = 30.0
_STAGGER_S = 0.25


class Origin(NamedTuple):
    """Where a connection goes. `ssl` None: plain TCP."""

    host: str
    port: int
    ssl: SSLContext | None = None


class Waits(Protocol):
    """Who has asked. One of the two is called, once, and not after `Wire.give_up`."""

    def answered(self, reply: Reply | KnownReply) -> None: ...

    def failed(self, reason: str, *, begun: bool, sent: bool) -> None:
        """What keeps the answer from being one; whether any of it came, and any of the request was sent."""
        ...


class Wire(asyncio.BufferedProtocol):
    """One connection, `over` before it is made and once it is of no use any more. `used`: it has carried an answer
    before. What comes unasked closes it."""

    __slots__ = (
        "_large",
        "_method",
        "_pool",
        "_pumping",
        "_reply",
        "_spools",
        "_transport",
        "_waits",
        "_writable",
        "idle_since_s",
        "over",
        "used",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._method = ""
        self._reply: Reply | None = None
        self._waits: Waits | None = None
        self._large = self._spools = self.used = False
        self._pumping: asyncio.Task[None] | None = None
        self._writable: asyncio.Event | None = None
        self.over = True
        self.idle_since_s = 0.0

    def ask(self, method: str, head: bytes, body: Body | Spool, waits: Waits, *, spools: bool = False) -> None:
        """Sends a request. The wire comes back to its pool by itself, when it is good for another one. With `spools` a
        large answer lies on disk."""
        self._method, self._waits, transport = method, waits, self._transport
        self._spools = spools
        self._large = len(body) > _SMALL_BYTES
        if transport is None or self.over:
            self._fail(ENDED, sent=False)
        elif isinstance(body, Spool):
            transport.write(head)
            self._pumping = asyncio.create_task(self._pump(transport, body))
        elif not self._large:
            transport.write(head + body)
        else:
            transport.writelines((head, body))  # not by two writes: the first would wake the upstream for a head

    def give_up(self) -> None:
        """Nobody waits any more: the upstream is told so by the end of its connection."""
        self._waits = None
        self.close()

    def late(self) -> None:
        """Nothing came in time: given up, and what is idle beside it goes with it, since that may be as dead."""
        self.give_up()
        self._pool.close_idle(of_any_age=True)

    def close(self) -> None:
        self.over = True
        if self._pumping is not None:
            self._pumping.cancel()
        if self._transport is not None:
            self._transport.abort()

    @property
    def _sent(self) -> bool:
        """Whether all of the request is: an upstream may answer before it has read everything."""
        written = self._transport is not None and not self._transport.get_write_buffer_size()
        return written and self._pumping is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.over = False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reply.room() if self._reply is not None else self._pool.buffer.view

    def buffer_updated(self, nbytes: int) -> None:
        if self._reply is not None:
            self._read(self._reply, partial(self._reply.filled, nbytes))
            return
        pool, waits = self._pool, self._waits
        known = pool.forms.reply(pool.buffer, nbytes) if waits is not None and self._method != "HEAD" else None
        if waits is None:
            self.close()  # nobody has asked
        elif known is not None:
            self._waits, self.used = None, True
            if self._large and not self._sent:
                self.close()
            else:
                pool.put_back(self)
            waits.answered(known)
        else:
            self._reply = self._new_reply()
            self._read(self._reply, partial(self._reply.take, bytes(pool.buffer.view[:nbytes])))

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()

    async def _pump(self, transport: asyncio.Transport, body: Spool) -> None:
        """As fast as the upstream takes it."""
        try:
            async for piece in body.pieces():
                transport.write(piece)
                if self._writable is not None:
                    await self._writable.wait()
        except OSError as error:
            self._fail(f"the request cannot be read from disk: {error}")
        finally:
            self._pumping = None

    def _read(self, reply: Reply, more: Callable[[], None]) -> None:
        try:
            more()
        except LargeReply:
            self._fail(TOO_LARGE)
        except BrokenReply as error:
            self._fail(str(error))
        else:
            if reply.done:
                if reply.plain and self._method != "HEAD":
                    self._pool.forms.learn(reply.head, reply.status, reply.headers)
                self._answer(reply, stays=reply.reusable)

    def eof_received(self) -> None:
        if self._waits is None:
            self.close()
            return
        reply = self._reply or self._new_reply()
        try:
            reply.ended()
        except BrokenReply as error:
            self._fail(str(error))
        else:
            self._answer(reply, stays=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        self._fail(str(exc) if exc is not None else ENDED)
        self._pool.lost(self)

    def _new_reply(self) -> Reply:
        place = self._place if self._spools else None
        return Reply(self._method, self._pool.buffer.view, max_body_bytes=self._pool.max_body_bytes, place=place)

    def _place(self, first: bytes, left: int) -> Bulk | Spooling:
        if len(first) + left <= SPOOLED_BYTES:
            return Bulk(first, left, self._pool.buffer.view, wanted=True)
        return Spooling(first, left, self._pool.buffer.view, hold=self._hold, failed=partial(self._fail, NO_ROOM))

    def _hold(self, hold: bool) -> None:
        """The upstream, while the disk is behind."""
        if self._transport is not None and not self.over:
            self._transport.pause_reading() if hold else self._transport.resume_reading()

    def _answer(self, reply: Reply | KnownReply, *, stays: bool) -> None:
        waits, self._reply, self._waits, self.used = self._waits, None, None, True
        if stays and not self.over and self._sent:
            self._pool.put_back(self)
        else:
            self.close()
        if waits is not None:
            waits.answered(reply)

    def _fail(self, reason: str, *, sent: bool = True) -> None:
        waits, reply, self._reply, self._waits = self._waits, self._reply, None, None
        self.close()
        if waits is not None:
            waits.failed(reason, begun=reply is not None and reply.begun, sent=sent)


class Pool:
    """The connections to one origin, the one that was used last first. At most `limit`: who asks beyond it waits.

    `buffer` is read into by all of them, and may be shared further.
    """

    def __init__(
        self,
        origin: Origin,
        buffer: Buffer,
        *,
        max_body_bytes: int,
        limit: int,
        idle: Alarm[Pool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._origin = origin
        self._limit = limit
        self._idle_alarm = idle
        self._clock = clock
        self._idle: deque[Wire] = deque()
        self._open: set[Wire] = set()
        self._turns: deque[asyncio.Future[None]] = deque()
        self._watched = False
        self.forms = Forms()
        self.buffer = buffer
        self.max_body_bytes = max_body_bytes

    @property
    def empty(self) -> bool:
        """Nothing is open, and nobody waits."""
        return not (self._open or self._turns)

    @property
    def spare(self) -> bool:
        """Whether one seems to be open that has nothing to do."""
        return bool(self._idle)

    def take(self) -> Wire | None:
        """One that is open and has nothing to do; None where there is none. Ask with it, or put it back."""
        while self._idle:
            wire = self._idle.pop()
            if not wire.over:
                return wire
        return None

    async def open(self, *, fresh: bool = False) -> Wire:
        """A new one; waits for a turn where the limit is reached, and then takes what is idle, unless it is to be
        `fresh`. Raises OSError."""
        wire = await self._turn(fresh=fresh)
        if wire is not None:
            return wire
        wire = Wire(self)
        self._open.add(wire)
        try:
            await self._connect(wire)
        except BaseException:
            # Also where whoever asked has left in the moment in which it was there.
            self._open.discard(wire)
            wire.close()
            self._next_turn()
            raise
        return wire

    def put_back(self, wire: Wire) -> None:
        wire.idle_since_s = self._clock()
        self._idle.append(wire)
        if not self._watched:
            self._watched = True
            self._idle_alarm.set(self, wire.idle_since_s + _IDLE_S)
        if self._turns:
            self._next_turn()

    def close_idle(self, *, of_any_age: bool = False) -> None:
        """Those that have had nothing to do for so long; the first in line has waited longest."""
        now_s, self._watched = self._clock(), False
        while self._idle and (of_any_age or self._idle[0].idle_since_s + _IDLE_S <= now_s):
            self._idle.popleft().close()
        if self._idle:
            self._watched = True
            self._idle_alarm.set(self, self._idle[0].idle_since_s + _IDLE_S)

    def lost(self, wire: Wire) -> None:
        self._open.discard(wire)
        if wire in self._idle:
            self._idle.remove(wire)
        self._next_turn()

    def close(self) -> None:
        for wire in [*self._open]:
            wire.close()

    async def _turn(self, *, fresh: bool) -> Wire | None:
        """Returns when one more may be opened, or with one that has nothing to do."""
        loop, place = asyncio.get_running_loop(), self._turns.append
        while len(self._open) >= self._limit:
            if fresh and self._idle:
                self._idle.pop().close()  # its end is a turn
            turn: asyncio.Future[None] = loop.create_future()
            place(turn)
            place = self._turns.appendleft
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next_turn()
                raise
            if not fresh and (wire := self.take()) is not None:
                return wire
        return None

    async def _connect(self, wire: Wire) -> None:
        """Several addresses are tried in turns (RFC 8305), so that one that is dead does not take all the time."""
        origin, loop = self._origin, asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        connected = await start_connection(found, happy_eyeballs_delay=_STAGGER_S, interleave=1, loop=loop)
        try:
            server_hostname = origin.host if origin.ssl is not None else None
            await loop.create_connection(lambda: wire, sock=connected, ssl=origin.ssl, server_hostname=server_hostname)
        except BaseException:
            connected.close()
            raise

    def _next_turn(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
