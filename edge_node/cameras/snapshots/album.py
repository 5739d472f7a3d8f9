"""Snapshots on the disk, by event: bounded, the oldest give way."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from edge_node.cameras.snapshots.config import SnapshotsConfig

_DAY_S = 86_400.0
_EVENT = re.compile(r"[a-z0-9-]{1,100}")
_SUFFIX = ".jpg"
_MODE = 0o640


class Album:
    """`directory`/CAMERA/EVENT.jpg. Blocks, for one thread; what another process left there is taken up by `open`."""

    def __init__(self, directory: Path, config: SnapshotsConfig, wall: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._config = config
        self._wall = wall
        self._kept: dict[Path, tuple[float, int]] = {}
        self.taken_bytes = 0

    def open(self) -> None:
        """Finds what is there, and takes away what was half written. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        found: list[tuple[float, Path, int]] = []
        for path in self._directory.glob("*/*"):
            if path.suffix == _SUFFIX:
                told = path.stat()
                found.append((told.st_mtime, path, told.st_size))
            elif path.suffix == ".part":
                path.unlink()
        for at_s, path, size in sorted(found):
            self._note(path, at_s, size)
        self._make_room(0)

    def put(self, camera: str, event: str, jpeg: bytes) -> None:
        """Whole or not at all. Raises OSError, and ValueError for names that are none."""
        path = self._path(camera, event)
        self._make_room(len(jpeg))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        try:
            with part.open("wb") as file:
                os.fchmod(file.fileno(), _MODE)
                file.write(jpeg)
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._note(path, self._wall(), len(jpeg))

    def get(self, camera: str, event: str) -> bytes | None:
        """Raises OSError."""
        try:
            return self._path(camera, event).read_bytes()
        except (FileNotFoundError, ValueError):
            return None

    def expire(self) -> None:
        """What is too old goes, also where nothing new comes. Raises OSError."""
        self._make_room(0)

    def _note(self, path: Path, at_s: float, size: int) -> None:
        self._forget(path)
        self._kept[path] = (at_s, size)
        self.taken_bytes += size

    def _forget(self, path: Path) -> None:
        self.taken_bytes -= self._kept.pop(path, (0.0, 0))[1]

    def _make_room(self, size: int) -> None:
        """For so many bytes more. What is kept lies in the order of its age."""
        oldest_s = self._wall() - self._config.keep_days * _DAY_S
        for path, (at_s, _) in list(self._kept.items()):
            if self.taken_bytes + size <= self._config.keep_bytes and at_s >= oldest_s:
                return
            path.unlink(missing_ok=True)
            self._forget(path)

    def _path(self, camera: str, event: str) -> Path:
        if not (_EVENT.fullmatch(camera) and _EVENT.fullmatch(event)):
            raise ValueError(f"{camera[:80]!r} and {event[:80]!r} name no event")
        return self._directory / camera / f"{event}{_SUFFIX}"
