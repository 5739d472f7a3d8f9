"""How a board is: memory and disk that are free, how hot it is, and whether it is slowed down for that."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from contracts.messages import MAX_CELSIUS, MIN_CELSIUS, Vitals
from edge_node.memory_limits import left_by_groups

_AVAILABLE = re.compile(r"MemAvailable:\s+([0-9]+) kB")
_CHANGED_C = 5.0
_CHANGED_SHARE = 0.1
_CHANGED_BYTES = 64 << 20


def available_bytes(root: Path = Path("/")) -> int:
    """What can be taken without swapping, and without being killed by a control group's limit; on a Jetson the GPU
    takes from the same. 0 where the kernel does not say."""
    try:
        found = _AVAILABLE.search((root / "proc/meminfo").read_text())
    except OSError:
        return 0
    if found is None:
        return 0
    free, left = int(found.group(1)) << 10, left_by_groups(root)
    return free if left is None else max(1, min(free, left))  # 0 would say that nobody knows


def hottest_c(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone in °C; None where there are none. A zone that is switched off does not answer."""
    zones = [_degrees(zone / "temp") for zone in root.glob("sys/class/thermal/thermal_zone*")]
    return max((degrees for degrees in zones if degrees is not None), default=None)


def is_throttled(root: Path = Path("/")) -> bool | None:
    """Whether clocks are held down against heat: a cooling device of a throttle, such as Jetson's
    `cpu-throttle-alert`, is at work. None where there is no such device. Not measured on a board."""
    states = [
        _text(device / "cur_state")
        for device in root.glob("sys/class/thermal/cooling_device*")
        if "throttle" in _text(device / "type")
    ]
    return any(state.isdecimal() and int(state) > 0 for state in states) if states else None


def read_vitals(free_disk_bytes: Callable[[], int], root: Path = Path("/")) -> Vitals:
    """All of it, now. Blocks for some file reads."""
    try:
        disk: int | None = free_disk_bytes()
    except OSError:
        disk = None
    return Vitals(
        free_memory_bytes=available_bytes(root) or None,
        free_disk_bytes=disk,
        temperature_c=hottest_c(root),
        throttled=is_throttled(root),
    )


def is_news(told: Vitals, now: Vitals) -> bool:
    """Whether something has changed that is worth a message: 5 °C, a tenth of what was free, being slowed down."""
    if told.throttled != now.throttled:
        return True
    if _moved(told.temperature_c, now.temperature_c, _CHANGED_C, 0.0):
        return True
    return _moved(told.free_memory_bytes, now.free_memory_bytes, _CHANGED_BYTES, _CHANGED_SHARE) or _moved(
        told.free_disk_bytes, now.free_disk_bytes, _CHANGED_BYTES, _CHANGED_SHARE
    )


def _moved(before: float | None, now: float | None, least: float, share: float) -> bool:
    if before is None or now is None:
        return before is not now
    return abs(now - before) >= max(least, share * before)


def _degrees(path: Path) -> float | None:
    """None also for what no board can be: some sensors answer nonsense while they sleep."""
    try:
        degrees = int(path.read_text()) / 1000.0
    except (OSError, ValueError):
        return None
    return degrees if MIN_CELSIUS <= degrees <= MAX_CELSIUS else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
