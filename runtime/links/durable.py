"""Files that survive a power cut: after these functions return, the new content is on disk, or the old one still is."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY_SUFFIX = ".new"


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replaces `path` in one step: a reader finds the old content or the new, never a part. One writer a path."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: a rename is only safe once its directory was synced."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
