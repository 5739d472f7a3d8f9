"""The router's process, or its control process where it has several."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from router.config import Config
from router.wiring import wired
from router.workers.run import run_workers
from runtime.links.http.exposure import check_exposure
from runtime.links.http.https import listener_context
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.process.settings import load
from runtime.links.process.state_dir import held


async def run(config: Config, *, ready: Callable[[str], None] | None = None) -> None:
    """Serves until a signal. Raises SettingsError when the configuration cannot work."""
    check_exposure(
        config.host,
        name=config.name,
        protected=bool(config.tokens_file or config.https.client_ca_file),
        insecure=config.insecure,
        remedy="name the tokens that may call in `tokens_file`",
    )
    tls = listener_context(config.https)
    workers = config.workers or len(os.sched_getaffinity(0))
    keeps = bool(config.broker_url or config.tokens_file)
    with held(Path(config.state_dir)) if keeps else nullcontext():
        if workers > 1:
            await run_workers(config, workers, ready=ready)
            return
        async with wired(config, rng=random.Random()) as app:
            await serve_app(app, config.host, config.port, name=config.name, ready=ready, tls=tls)


def main() -> None:
    """`python -m router [CONFIG.toml]`."""
    configure_logging()
    run_loop(_configured(Path(sys.argv[1]) if len(sys.argv) > 1 else None))


async def _configured(path: Path | None) -> None:
    await run(load(path, Config))


if __name__ == "__main__":
    main()
