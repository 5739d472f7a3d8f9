"""Small writes of one turn of the event loop, made together at its end.

Whoever gets the first one is woken while the others are still to come, and then finds all of them: to wake a process
costs more than to write a thousand bytes, most of all on a virtual machine.
"""

from __future__ import annotations

import asyncio

_MOST = 64


class Outbox:
    """Writes are in order. Who writes to a transport otherwise, or closes it, calls `flush` before."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        waiting.append((transport, data))
        if len(waiting) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
