"""How a board is: memory that is free, and how hot it is."""

from __future__ import annotations

import re
from pathlib import Path

_AVAILABLE = re.compile(r"MemAvailable:\s+([0-9]+) kB")


def available_bytes(root: Path = Path("/")) -> int:
    """What can be taken without swapping; on a Jetson the GPU takes from the same. 0 where the kernel does not say."""
    try:
        found = _AVAILABLE.search((root / "proc/meminfo").read_text())
    except OSError:
        return 0
    return int(found.group(1)) << 10 if found else 0


def hottest_c(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone in °C; None where there are none. A zone that is switched off does not answer."""
    zones = [_degrees(zone / "temp") for zone in root.glob("sys/class/thermal/thermal_zone*")]
    return max((degrees for degrees in zones if degrees is not None), default=None)


def _degrees(path: Path) -> float | None:
    try:
        return int(path.read_text()) / 1000.0
    except (OSError, ValueError):
        return None
