"""The workers' processes: started, started again when they end or hang, and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from router.workers.control import Control, Worker
from router.workers.frames import Broken, Setup, to_worker
from runtime.links.http.serve import DRAIN_S
from runtime.links.process.settings import SettingsError
from runtime.links.process.within import within

log = logging.getLogger(__name__)

SILENT_S = 10.0
"""After so long without a sign of life a worker's event loop hangs."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_LOOK_S = 1.0
_STEADY_S = 30.0
_START = "import sys; sys.path[:] = sys.argv[2:]; from router.workers.__main__ import main; main()"
"""Modules come from where this process's own do: in the working directory may lie a `router.py` too."""
_MANAGERS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What a service manager wants to hear, it hears from the control process."""


class Supervisor:
    """Keeps one worker for each of `setups` running. `clock` is monotonic, in seconds."""

    def __init__(self, control: Control, setups: list[Setup], clock: Callable[[], float]) -> None:
        self._control = control
        self._setups = setups
        self._clock = clock
        self._processes: dict[int, Process] = {}
        self._listening: dict[int, Process] = {}
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The URL at which all of them listen. They drain when the context ends. Raises SettingsError where one ends
        before it listens."""
        first: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in self._setups]
        keeping = [asyncio.create_task(self._keep(setup, url)) for setup, url in zip(self._setups, first, strict=True)]
        try:
            yield (await asyncio.gather(*first))[0]
        finally:
            self._stopping = True
            for process in self._processes.values():
                _signal(process, signal.SIGTERM)
            await asyncio.gather(*keeping, return_exceptions=True)

    def pass_on(self, number: signal.Signals) -> None:
        """To all workers that listen, and so know what to do with it."""
        for process in self._listening.values():
            _signal(process, number)

    async def _keep(self, setup: Setup, url: asyncio.Future[str]) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = self._clock()
            code = await self._one(setup, url)
            if self._stopping:
                url.cancel()
                return
            if not url.done():
                url.set_exception(_ended_early(setup, code))
                return
            pause_s = FIRST_PAUSE_S if self._clock() - began_s > _STEADY_S else min(LONGEST_PAUSE_S, 2 * pause_s)
            log.error("worker %d %s: another one is started in %.1f s", setup.number, _how(code), pause_s)
            await asyncio.sleep(pause_s)

    async def _one(self, setup: Setup, url: asyncio.Future[str]) -> int:
        """From its start to its end; its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _START, str(theirs.fileno()), *(path or os.getcwd() for path in sys.path)),
                pass_fds=[theirs.fileno()],
                env={name: value for name, value in os.environ.items() if name not in _MANAGERS_OWN},
            )
        self._processes[setup.number] = process
        if self._stopping:
            _signal(process, signal.SIGTERM)
        channel = await to_worker(ours)
        channel.send(setup)
        worker = self._control.met(channel)
        watching = asyncio.create_task(self._watch(setup, worker, process))
        worker.url.add_done_callback(lambda told: _pass_on(told, url))
        worker.url.add_done_callback(lambda _: self._listening.update({setup.number: process}))
        try:
            with suppress(Broken):
                await self._control.hear(worker)
            return await _wait(process)
        finally:
            watching.cancel()
            await channel.close()

    async def _watch(self, setup: Setup, worker: Worker, process: Process) -> None:
        """Where its event loop hangs, its stacks are told, and it ends; see `runtime.links.http.serve.run_loop`."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._clock() - worker.alive_s > SILENT_S:
                log.error("worker %d has not been heard of for %.0f s: it is ended", setup.number, SILENT_S)
                _signal(process, signal.SIGABRT)
                return


async def _wait(process: Process) -> int:
    """Its exit code, once it has drained; one that does not is killed."""
    try:
        return await within(process.wait(), DRAIN_S + 3.0)
    except asyncio.TimeoutError:
        _signal(process, signal.SIGKILL)
        return await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)


def _pass_on(told: asyncio.Future[str], url: asyncio.Future[str]) -> None:
    if not told.cancelled() and not url.done():
        url.set_result(told.result())


def _ended_early(setup: Setup, code: int) -> SettingsError:
    return SettingsError(f"{setup.config.name}: worker {setup.number} {_how(code)} before it listened; see above why.")


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
