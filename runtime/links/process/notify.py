"""What a service manager is told of this process: ready, alive, stopping. systemd's protocol, see sd_notify(3)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

_PATIENCE_S = 1.0
_BEATS = 3
"""In a time after which the process counts as stuck: one or two may be late or lost."""


class Notifier:
    """`address` is that of a datagram socket, "" where nobody wants to know; then nothing is sent.

    `watchdog_s` is the time within which the next sign of life is waited for; 0 where nobody waits.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, *, pid: int | None = None) -> Notifier:
        """As the service manager has set it; see sd_watchdog_enabled(3). An address that is none is told and left."""
        address = environment.get("NOTIFY_SOCKET", "")
        if address and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET %r is no path of a socket: the service manager is told nothing", address)
            address = ""
        return cls(address, _watchdog_s(environment, os.getpid() if pid is None else pid) if address else 0.0)

    @asynccontextmanager
    async def life(self, status: str) -> AsyncIterator[None]:
        """Ready now, alive until the end of this context, stopping when `stopping` says so.

        The signs of life come from the event loop that serves: where that hangs, they end.
        """
        self._tell(f"READY=1\nSTATUS={status}")
        beating = asyncio.create_task(self._beat()) if self._watchdog_s else None
        try:
            yield
        finally:
            if beating is not None:
                beating.cancel()

    def stopping(self) -> None:
        self._tell("STOPPING=1\nSTATUS=draining")

    async def _beat(self) -> None:
        while True:
            self._tell("WATCHDOG=1", patience_s=0.0)
            await asyncio.sleep(self._watchdog_s / _BEATS)

    def _tell(self, words: str, *, patience_s: float = _PATIENCE_S) -> None:
        """A manager that does not listen keeps nobody from serving; a sign of life does not even wait for it."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(patience_s)
                to.connect(self._address)
                to.send(words.encode())
        except OSError as error:
            log.warning("the service manager was not told %r: %s", words.partition("\n")[0], error)


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float:
    """0 where nobody waits, where it is meant for another process, and where it cannot be read."""
    told, meant = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(pid))
    return int(told) / 1e6 if told.isdecimal() and meant == str(pid) else 0.0
