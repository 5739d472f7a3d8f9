"""A process with all that it has started: found, measured, pinned, paused and resumed as one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from benchmarks.machine import cpu_s


class Tree:
    """The processes below `root` as they are now, without `root` itself."""

    def __init__(self, root: int) -> None:
        self.pids = descendants(root)
        self._last_s: dict[int, float] = {}

    def cpu_s(self) -> float:
        """CPU seconds of all of them so far; of those that have ended, what they had when last looked at."""
        for pid in self.pids:
            with suppress(OSError):
                self._last_s[pid] = cpu_s(pid)
        return sum(self._last_s.values())

    def pause(self) -> None:
        send(self.pids, signal.SIGSTOP)

    def resume(self) -> None:
        send(self.pids, signal.SIGCONT)


def descendants(root: int) -> list[int]:
    """The processes that `root` has started, and those that these have; parents before children."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Those that have ended meanwhile are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def shared_memory(pids: Iterable[int]) -> set[Path]:
    """The files of shared memory that these processes have mapped: /proc/PID/maps, proc(5)."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            names = (line.partition("/dev/shm/")[2] for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
            found |= {Path("/dev/shm", name) for name in names if name and not name.endswith(" (deleted)")}
    return found


def _parents() -> list[tuple[int, int]]:
    """All processes of this machine, each with its parent: the fourth field of /proc/PID/stat, proc(5)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                behind_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found.append((int(entry.name), int(behind_name[1])))
    return found
