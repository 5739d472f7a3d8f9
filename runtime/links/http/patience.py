"""How long a server's connections wait for their callers."""

from __future__ import annotations

import asyncio
import time

from runtime.links.process.alarm import Alarm

LINGER_S = 10.0
"""For so long the rest of a body is read that nobody wants any more: a caller that still writes would not see why."""
HEAD_S = 30.0
"""Within so long the head of a request comes, from its first byte on, and the first one of a connection."""
STALLED_S = 30.0
"""For so long a caller may leave what is sent to it."""


class Patience:
    """Of one server."""

    def __init__(self) -> None:
        self.lingering: Alarm[asyncio.Transport] = Alarm(lambda transport: transport.close())
        self.headless: Alarm[asyncio.Transport] = Alarm(lambda transport: transport.abort())
        self.stalled: Alarm[asyncio.Transport] = Alarm(lambda transport: transport.abort())


class Waiting:
    """Of one connection, which ends where it has waited too long. `headless`: a head is waited for."""

    __slots__ = ("_patience", "_transport", "headless")

    def __init__(self, patience: Patience, transport: asyncio.Transport) -> None:
        self._patience = patience
        self._transport = transport
        self.headless = False

    def head(self) -> None:
        """All of one: who sends it drop by drop gains no time by that."""
        if not self.headless:
            self.headless = True
            self._patience.headless.set(self._transport, time.monotonic() + HEAD_S)

    def head_came(self) -> None:
        self.headless = False
        self._patience.headless.clear(self._transport)

    def rest(self) -> None:
        """The end of a body that nobody wants."""
        self._patience.lingering.set(self._transport, time.monotonic() + LINGER_S)

    def rest_came(self) -> None:
        self._patience.lingering.clear(self._transport)

    def reader(self) -> None:
        """A caller that does not take its answer."""
        self._patience.stalled.set(self._transport, time.monotonic() + STALLED_S)

    def reader_reads(self) -> None:
        self._patience.stalled.clear(self._transport)

    def end(self) -> None:
        """The connection is gone."""
        self.head_came()
        self.rest_came()
        self.reader_reads()
