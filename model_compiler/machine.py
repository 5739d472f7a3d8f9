"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUS = Path("/proc/cpuinfo")
_MODEL = "model name"


def machine(cpus: Path = _CPUS) -> str:
    """Enough to tell two measurements apart, nothing that identifies the host."""
    model = _model(cpus)
    return f"{platform.machine()}{f' ({model})' if model else ''}, {os.cpu_count()} cores, {platform.system()}"


def _model(cpus: Path) -> str:
    """As Linux tells it; "" where it does not."""
    try:
        lines = cpus.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(_MODEL)), "")
