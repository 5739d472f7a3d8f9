"""The story of a router of several processes."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from aiohttp import web

from router.config import Config
from router.discovery import Discovery
from router.hub import METRICS, RESULT
from router.late_results import LateResults
from router.results import Results
from router.wiring import Parts, Works, admission_of, discovery_of, holder_of, ledger_of, parts_of, probes_of
from router.workers.board import Board
from router.workers.control import Control
from router.workers.frames import Setup
from router.workers.supervisor import Supervisor
from runtime.links.access.admission import admission_middleware
from runtime.links.http.errors import error_middleware
from runtime.links.http.serve import bind, log, stop_on_signals
from runtime.links.http.timed import timing_middleware
from runtime.links.process.notify import Notifier

_SOCKET = "control.sock"
_LOOK_S = 0.5


async def run_workers(config: Config, count: int, *, ready: Callable[[str], None] | None = None) -> None:
    """Serves with so many workers until a signal. Raises SettingsError when the configuration cannot work."""
    stopping, notifier = stop_on_signals(), Notifier.from_environment()
    async with AsyncExitStack() as closing:
        port = closing.enter_context(_reserved(config.host, config.port, config.name))
        path = str(Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="foothill-router-"))) / _SOCKET)
        parts = await closing.enter_async_context(parts_of(config, rng=random.Random()))
        control = await closing.enter_async_context(_controlling(parts, path))
        setups = [Setup(parts.config, parts.hop_key, number, count, port, path) for number in range(1, count + 1)]
        supervisor = Supervisor(control, setups, time.monotonic)
        url = await closing.enter_async_context(supervisor.running())
        if config.access_log.path:  # each worker has it open
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, supervisor.pass_on, signal.SIGHUP)
        await closing.enter_async_context(notifier.life(f"{config.name} listening on {url}"))
        log.info("%s, with %d workers, listening on %s", config.name, count, url)
        if ready is not None:
            ready(url)
        await stopping.wait()
        log.info("%s stops", config.name)
        notifier.stopping()


@asynccontextmanager
async def _controlling(parts: Parts, path: str) -> AsyncIterator[Control]:
    """The control process's own part: it hears the fleet, and answers at a socket of its own."""
    async with AsyncExitStack() as closing:
        discovery: Discovery | None = None
        control = Control(
            parts.telemetry.registry, parts.nodes, lambda: discovery.connected if discovery else None, time.monotonic
        )
        discovery = discovery_of(parts, control.board, control.board)
        holder = holder_of(parts, discovery.publish_audit if discovery else None)
        closing.push_async_callback(holder.close)
        results = Results(holder, clock=time.monotonic, wall=time.time)
        closing.push_async_callback(results.close)
        ledger, probes = ledger_of(parts.config), probes_of(parts, control.probed)
        control.keeps(results, ledger.budgets, discovery.publish_audit if discovery else None)
        runner = web.AppRunner(_app(parts.config, control, results), access_log=None, shutdown_timeout=1.0)
        closing.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        parts_at_work: list[Works] = [ledger, probes, *([discovery] if discovery is not None else [])]
        for part in parts_at_work:
            closing.push_async_callback(part.stop)
            await part.start()
        looking = asyncio.create_task(_look(control.board))
        try:
            yield control
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking


async def _look(board: Board) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        board.look()


def _app(config: Config, control: Control, results: Results) -> web.Application:
    """What workers relay here."""
    admission = admission_of(config, control.rates.of)
    asking = [admission_middleware(admission)] if admission is not None else []
    app = web.Application(middlewares=[timing_middleware(time.monotonic), error_middleware(config.name), *asking])
    app.add_routes([web.get(METRICS, control.metrics), web.get(RESULT, LateResults(results).result)])
    return app


@contextmanager
def _reserved(host: str, port: int, name: str) -> Iterator[int]:
    """The port, bound and listened at by nobody, while workers come to bind it; 0 takes a free one.

    Raises SettingsError when somebody else has it: it is asked for alone first, since SO_REUSEPORT would share it with
    any process of the same user.
    """
    with bind(host, port, name) as alone:
        found: int = alone.getsockname()[1]
    with bind(host, found, name, shared=True):
        yield found
