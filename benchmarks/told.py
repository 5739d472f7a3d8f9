"""What the processes of a benchmark tell the one that started them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Calls(msgspec.Struct):
    """What one run of `benchmarks.engine` came to."""

    wall_s: float
    cpu_s: float
    latencies_ms: list[float]


def tell_ready(path: str, url: str) -> None:
    """Writes a URL so that whoever sees the file sees all of it."""
    beside = Path(f"{path}.{os.getpid()}")
    beside.write_text(url)
    beside.replace(path)
