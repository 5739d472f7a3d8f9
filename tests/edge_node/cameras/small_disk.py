"""A real file system that is soon full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = 4096


class SmallDisk:
    """At `path`, of 1 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """What files have of their last page stays theirs."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * _PAGE_BYTES)

    def make_room(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk_at(path: Path) -> Iterator[SmallDisk]:
    """Raises OSError where nothing may be mounted."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    told = subprocess.run(mount, capture_output=True, text=True, check=False)
    if told.returncode:
        raise OSError(told.stderr.strip())
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
