"""How much memory this process's control groups leave it; see cgroups(7), and the kernel's cgroup-v1/v2 documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_V2_LIMITS = ("memory.max", "memory.high")
_V1_LIMITS = ("memory.limit_in_bytes",)
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 says "unlimited" as a number near 2^63."""


class _Group(NamedTuple):
    """One control group, and how its version names things. `reclaimed` are keys of `memory.stat`."""

    directory: Path
    limits: tuple[str, ...]
    usage: str
    reclaimed: str


def left_by_groups(root: Path = Path("/")) -> int | None:
    """Bytes that the narrowest of this process's groups, or of those around them, leaves; None where none has a limit.

    File cache that nobody has used for a while counts as free. What is used is not: weights that are mapped into
    memory are read by every run, and taking them away would be felt.
    """
    found = [left for group in _groups(root) if (left := _left(group)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[_Group]:
    for line in _lines(root / "proc/self/cgroup"):
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if not controllers:
            for directory in _upwards(root / "sys/fs/cgroup", path):
                yield _Group(directory, _V2_LIMITS, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for directory in _upwards(root / "sys/fs/cgroup/memory", path):
                yield _Group(directory, _V1_LIMITS, "memory.usage_in_bytes", "total_inactive_file")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group and all above it. In a container its own path may not be there: the mount is then the group itself."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _left(group: _Group) -> int | None:
    limits = [limit for name in group.limits if (limit := _number(group.directory / name)) is not None]
    used = _number(group.directory / group.usage)
    limit = min(limits, default=_NO_LIMIT_BYTES)
    if used is None or limit >= _NO_LIMIT_BYTES:
        return None
    return max(0, limit - used + min(used, _reclaimed(group)))


def _reclaimed(group: _Group) -> int:
    for line in _lines(group.directory / "memory.stat"):
        key, _, value = line.partition(" ")
        if key == group.reclaimed and value.isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    """None for what is not there, and for `max`."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []
