"""The router, telling where it listens: `python -m benchmarks.router_process CONFIG.toml READY_FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.told import tell_ready
from router.__main__ import run
from router.config import Config
from runtime.links.http.serve import configure_logging, run_loop
from runtime.links.process.settings import load

if __name__ == "__main__":
    configure_logging()
    run_loop(run(load(Path(sys.argv[1]), Config), ready=lambda url: tell_ready(sys.argv[2], url)))
