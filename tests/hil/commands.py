"""`foothill hil` and `foothill fleet` as their operator types them, for the board of a test's site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.hil.site import NODE, ROOT, Site

FOOTHILL = (sys.executable, "-m", "foothill")
SHORT = ("--requests", "30", "--step-s", "0.3", "--concurrency", "2", "--soak-s", "4")
"""Long enough for a dozen looks at the node's memory and for three at its sensors, which are a second apart."""


def hil(site: Site, *arguments: str, more: str = "") -> list[str]:
    known = ("--board", NODE, "--boards", str(site.boards(more=more)))
    fleet = ("--fleet", site.fleet.url, "--fleet-token", str(site.fleet_token))
    return [*FOOTHILL, "hil", "run", *known, *fleet, *SHORT, *arguments]


def fleet(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    known = ("--fleet", site.fleet.url, "--token-file", str(site.fleet_token))
    return run([*FOOTHILL, "fleet", *arguments, *known])


def run(command: list[str], path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`path`: a folder of programs that go before the system's."""
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path is not None else None
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False, env=env)
