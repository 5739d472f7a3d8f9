"""What only one process at a time may do."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Holds the file `lock`, and removes it afterwards; waits for as long as another process or thread holds it.

    The system lets go of it when its holder ends, however that ends. Raises OSError where the disk does not take it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, lock):
                continue  # whoever held it has removed it: others may hold a new one already
            try:
                yield
            finally:
                lock.unlink()
            return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
