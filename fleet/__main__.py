"""The fleet manager as a process: `python -m fleet [CONFIG.toml]`."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fleet.app import Parts, create_app
from fleet.assembly import assembled
from fleet.broker import Broker
from fleet.config import FleetConfig
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.process.settings import load
from runtime.links.process.state_dir import held

log = logging.getLogger(__name__)


async def run(config: FleetConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingsError."""
    with held(Path(config.state_dir)):
        async with opened(config) as parts:
            await serve_app(create_app(parts), config.host, config.port, name="fleet", ready=ready)


@asynccontextmanager
async def opened(config: FleetConfig, clock: Callable[[], float] = time.time) -> AsyncIterator[Parts]:
    """All parts, started; stopped in reverse order. `clock` gives unix time."""
    broker: Broker | None = None
    if not config.broker_url:
        broker = Broker(config.broker, table="[broker]")
        await broker.start()
        log.info("fleet: broker (%s) listening on %s", broker.program, broker.url)
    try:
        async with assembled(config, broker, clock) as parts:
            await parts.controller.start()
            await parts.chunks.start()
            try:
                yield parts
            finally:
                await parts.chunks.stop()
                await parts.controller.stop()
    finally:
        if broker is not None:
            await broker.stop()


def main() -> None:
    configure_logging()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None

    async def life() -> None:
        await run(load(path, FleetConfig))

    run_loop(life())


if __name__ == "__main__":
    main()
