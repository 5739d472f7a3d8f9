"""A delaying TCP relay on asyncio protocols: what one side sends reaches the other half a round trip later.

No bandwidth limit, no loss, no jitter: only distance. Per direction one queue in order, for all of them one timer heap.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, cast

from foothill.simulators.links import Link, LinkCount

_MAX_IN_FLIGHT_BYTES = 64 << 20
# Event loops round timers to milliseconds; what is due within the rounding is handed over.
_TOLERANCE_S = 0.0005
_LINGER_RESET = struct.pack("ii", 1, 0)

End = Literal["end", "reset"]


class Timeline:
    """One heap of due times for any number of pipes, behind one timer of the event loop. Times: `time.monotonic`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0

    def at(self, due_s: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (due_s, next(self._order), callback))
        self._arm()

    def _arm(self) -> None:
        if not self._heap:
            return
        due_s = self._heap[0][0]
        if self._timer is not None:
            if self._timer_s <= due_s:
                return
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = self._loop.call_later(max(0.0, due_s - time.monotonic()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        until_s = time.monotonic() + _TOLERANCE_S
        while self._heap and self._heap[0][0] <= until_s:
            heapq.heappop(self._heap)[2]()
        self._arm()


class Pipe:
    """One direction of a connection: a queue of (due time, bytes or end), delivered in order.

    `open_s` is when its first byte may leave (the handshake). Reading from the source stops while the sink takes
    nothing or 64 MiB are under way.
    """

    def __init__(self, timeline: Timeline, delay_s: float, open_s: float, count: Callable[[int], None]) -> None:
        self._timeline = timeline
        self._delay_s = delay_s
        self._open_s = open_s
        self._count = count
        self._queue: deque[tuple[float, bytes | End]] = deque()
        self._in_flight_bytes = 0
        self._timed = False
        self._sink_full = False
        self._source_paused = False
        self._source: asyncio.Transport | None = None
        self._sink: asyncio.Transport | None = None
        self._dead = False
        self.ended = False
        self.on_ended: Callable[[], None] = lambda: None

    def read_from(self, source: asyncio.Transport) -> None:
        self._source = source
        self._press()

    def write_to(self, sink: asyncio.Transport) -> None:
        self._sink = sink
        self._deliver()

    def feed(self, item: bytes | End) -> None:
        """Takes what the source said now."""
        if self._dead:
            return
        due_s = max(time.monotonic(), self._open_s) + self._delay_s
        self._queue.append((due_s, item))
        if isinstance(item, bytes):
            self._in_flight_bytes += len(item)
            self._press()
        else:
            self._source = None
        self._time_next()

    def refuse(self) -> None:
        """The other side cannot be reached: a reset travels to the sink, without waiting for a handshake."""
        self._open_s = 0.0
        self.feed("reset")

    def sink_full(self, full: bool) -> None:
        self._sink_full = full
        if not full:
            self._deliver()
        self._press()

    def drop(self) -> None:
        """The sink is gone: nothing that is under way arrives."""
        self._dead = True
        self._queue.clear()
        self._in_flight_bytes = 0
        self._press()

    def _time_next(self) -> None:
        if self._queue and not self._timed and not self._sink_full and self._sink is not None:
            self._timed = True
            self._timeline.at(self._queue[0][0], self._due)

    def _due(self) -> None:
        self._timed = False
        self._deliver()

    def _deliver(self) -> None:
        until_s = time.monotonic() + _TOLERANCE_S
        while self._queue and self._queue[0][0] <= until_s and not self._sink_full and self._sink is not None:
            self._hand_over(self._queue.popleft()[1], self._sink)
        self._press()
        self._time_next()

    def _hand_over(self, item: bytes | End, sink: asyncio.Transport) -> None:
        if isinstance(item, bytes):
            self._in_flight_bytes -= len(item)
            self._count(len(item))
            sink.write(item)
        elif item == "reset":
            self.drop()
            reset(sink)
        elif not self.ended:
            self.ended = True
            if not sink.is_closing():
                sink.write_eof()
            self.on_ended()

    def _press(self) -> None:
        """Keeps back-pressure: the source is read only while the sink takes bytes."""
        wanted = not self._dead and (self._sink_full or self._in_flight_bytes > _MAX_IN_FLIGHT_BYTES)
        if self._source is None or wanted == self._source_paused or self._source.is_closing():
            return
        self._source_paused = wanted
        if wanted:
            self._source.pause_reading()
        else:
            self._source.resume_reading()


class Side(asyncio.Protocol):
    """One socket of a relayed connection: it receives for `outgoing` and sends what comes from `incoming`."""

    def __init__(
        self, outgoing: Pipe, incoming: Pipe, on_made: Callable[[Side], None], on_lost: Callable[[Side], None]
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_made = on_made
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._on_made(self)
        self._outgoing.read_from(self._transport)
        self._incoming.write_to(self._transport)

    def data_received(self, data: bytes) -> None:
        self._outgoing.feed(data)

    def eof_received(self) -> bool:
        self._outgoing.feed("end")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        # Without an error it is this relay that closed, after both ends or a reset.
        if error is not None:
            self._outgoing.feed("reset")
        self._incoming.drop()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._incoming.sink_full(True)

    def resume_writing(self) -> None:
        self._incoming.sink_full(False)


class Relay:
    """One listening link. Connects to its target half a round trip after a connection came in.

    A target that refuses shows as a reset one round trip after connecting, since the connecting side has by then
    been accepted by the relay itself.
    """

    def __init__(self, link: Link, timeline: Timeline, loop: asyncio.AbstractEventLoop) -> None:
        self.link = link
        self.port = 0
        self.connections = self.open = self.refused = self.up_bytes = self.down_bytes = 0
        self._timeline = timeline
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self._sides: set[Side] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def listen(self, host: str) -> None:
        """Raises OSError when the port is taken."""
        self._server = await self._loop.create_server(self._accept, host, self.link.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connecting in self._connecting:
            connecting.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for side in list(self._sides):
            side.abort()
        await self.idle()

    async def idle(self) -> None:
        """Returns when no connection is open."""
        await self._idle.wait()

    def count(self) -> LinkCount:
        return LinkCount(
            name=self.link.name,
            target=self.link.target,
            port=self.port,
            rtt_ms=self.link.rtt_ms,
            connections=self.connections,
            open=self.open,
            refused=self.refused,
            up_bytes=self.up_bytes,
            down_bytes=self.down_bytes,
        )

    def _accept(self) -> Side:
        now_s, rtt_s = time.monotonic(), self.link.rtt_ms / 1000.0
        # The connecting side may send once its handshake is back; a server that speaks first, half a trip later.
        up = Pipe(self._timeline, rtt_s / 2, now_s + rtt_s, self._count_up)
        down = Pipe(self._timeline, rtt_s / 2, now_s + 1.5 * rtt_s, self._count_down)
        near, far = self._side(up, down), self._side(down, up)

        def close_when_both_ended() -> None:
            if up.ended and down.ended:
                near.close()
                far.close()

        up.on_ended = down.on_ended = close_when_both_ended
        self.connections += 1
        self._timeline.at(now_s + rtt_s / 2, lambda: self._connect(far, down))
        return near

    def _side(self, outgoing: Pipe, incoming: Pipe) -> Side:
        return Side(outgoing, incoming, self._made, self._lost)

    def _connect(self, far: Side, down: Pipe) -> None:
        task = self._loop.create_task(self._connect_far(far, down))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_far(self, far: Side, down: Pipe) -> None:
        host, _, port = self.link.target.rpartition(":")
        try:
            await self._loop.create_connection(lambda: far, host.strip("[]"), int(port))
        except OSError:
            self.refused += 1
            down.refuse()

    def _made(self, side: Side) -> None:
        self._sides.add(side)
        self._note_open()

    def _lost(self, side: Side) -> None:
        self._sides.discard(side)
        self._note_open()

    def _note_open(self) -> None:
        self.open = len(self._sides)
        if self._sides:
            self._idle.clear()
        else:
            self._idle.set()

    def _count_up(self, length: int) -> None:
        self.up_bytes += length

    def _count_down(self, length: int) -> None:
        self.down_bytes += length


def reset(transport: asyncio.Transport) -> None:
    """Closes with a TCP reset, not an orderly end."""
    connected = transport.get_extra_info("socket")
    if not transport.is_closing() and connected is not None:
        # uvloop's socket takes no options; a duplicate of the descriptor sets them on the same socket.
        with socket.socket(fileno=os.dup(connected.fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    transport.abort()
