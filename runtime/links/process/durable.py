"""Files that survive a power cut: after these functions return, the new content is on disk, or the old one still is."""

from __future__ import annotations

from pathlib import Path

from runtime.links.process.disk import REAL_DISK, Disk

TEMPORARY_SUFFIX = ".new"


def write_file(path: Path, data: bytes, *, mode: int = 0o644, disk: Disk = REAL_DISK) -> None:
    """Replaces `path` in one step: a reader finds the old content or the new, never a part. One writer a path."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    file = disk.open(temporary, mode=mode)
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()
    disk.replace(temporary, path)
    disk.sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable: a rename is only safe once its directory was synced."""
    REAL_DISK.sync_directory(path)


def make_directories(path: Path, disk: Disk = REAL_DISK) -> None:
    """Makes a directory and those above it: a synced file is lost with a directory whose own name was not."""
    if path.is_dir():
        return
    make_directories(path.parent, disk)
    try:
        disk.make_directory(path)
    except FileExistsError:
        return
    disk.sync_directory(path.parent)


def remove_tree(path: Path, disk: Disk = REAL_DISK) -> None:
    """A file, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            remove_tree(entry, disk)
        disk.remove_directory(path)
    else:
        disk.unlink(path)
