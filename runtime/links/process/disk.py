"""Everything that changes a process's files, as one small port: the order of these calls decides what survives a
power cut, and tests play one after each of them.

What POSIX promises, and no more, is built on: written bytes are safe once their file was synced, a name once its
directory was; a `replace` shows the old file or the new one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol


class Writing(Protocol):
    """A file open for writing, from one place on. All methods block and raise OSError."""

    def write(self, data: bytes) -> None:
        """All of `data`, handed to the kernel when this returns."""
        ...

    def sync(self) -> None:
        """Returns when all that was written is on disk."""
        ...

    def close(self) -> None: ...


class Patching(Protocol):
    """A file open for writing anywhere in it. All methods block and raise OSError."""

    def write_at(self, at: int, data: bytes) -> None:
        """All of `data` from byte `at` on, handed to the kernel when this returns. A gap before it reads as zeros."""
        ...

    def sync(self) -> None:
        """Returns when all that was written is on disk."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """All methods block and raise OSError."""

    def open(self, path: Path, *, at: int = 0, mode: int = 0o644) -> Writing:
        """For writing from byte `at` on; what stood behind it is cut off. At 0 a missing file is made, with `mode`."""
        ...

    def patch(self, path: Path) -> Patching:
        """For writing anywhere; what stands in the file stays, and a missing one is made."""
        ...

    def sync(self, path: Path) -> None:
        """The bytes of a file that is closed."""
        ...

    def sync_directory(self, path: Path) -> None:
        """The names in a directory."""
        ...

    def seal(self, path: Path) -> None:
        """Nobody is to write to this file again."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """A file takes its target's place; a directory only that of an empty one, or none."""
        ...

    def link(self, source: Path, target: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def make_directory(self, path: Path) -> None:
        """Raises FileExistsError."""
        ...

    def remove_directory(self, path: Path) -> None:
        """An empty one."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Of the file system under `path`, for this process."""
        ...


class RealDisk:
    """The operating system's files."""

    def open(self, path: Path, *, at: int = 0, mode: int = 0o644) -> Writing:
        return _RealWriting(path, at, mode)

    def patch(self, path: Path) -> Patching:
        return _RealPatching(path)

    def sync(self, path: Path) -> None:
        _sync(path, os.O_RDONLY)

    def sync_directory(self, path: Path) -> None:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def seal(self, path: Path) -> None:
        path.chmod(0o444)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def make_directory(self, path: Path) -> None:
        path.mkdir()

    def remove_directory(self, path: Path) -> None:
        path.rmdir()

    def free_bytes(self, path: Path) -> int:
        return shutil.disk_usage(path).free


REAL_DISK: Disk = RealDisk()


class _RealWriting:
    def __init__(self, path: Path, at: int, mode: int) -> None:
        # Unbuffered: what was written is with the kernel, and a full disk is noticed by the write that filled it.
        descriptor = os.open(path, os.O_WRONLY | (0 if at else os.O_CREAT), mode)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        try:
            if not at:
                os.fchmod(descriptor, mode)
            self._file.truncate(at)
            self._file.seek(at)
        except OSError:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _RealPatching:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)

    def write_at(self, at: int, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._descriptor, left, at)
            left, at = left[written:], at + written

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
