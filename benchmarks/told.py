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


class Opened(msgspec.Struct):
    """What one run of `benchmarks.opened` came to. `from_kept`: the optimized graph of an earlier start was opened."""

    load_ms: float
    first_answer_ms: float
    cpu_s: float
    memory_bytes: int
    from_kept: bool

    def line(self) -> str:
        return msgspec.json.encode(self).decode() + "\n"


def tell_ready(path: str, url: str) -> None:
    """Writes a URL so that whoever sees the file sees all of it."""
    beside = Path(f"{path}.{os.getpid()}")
    beside.write_text(url)
    beside.replace(path)
