"""A directory of clips belongs to one node at a time: two would clear away what the other is writing."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from pathlib import Path

_TAKEN = frozenset((errno.EACCES, errno.EAGAIN))


class Tenure:
    """Until it is dropped, or its process ends. Blocks. It holds the directory itself: nothing of it lies there."""

    def __init__(self) -> None:
        self._release: weakref.finalize[..., Tenure] | None = None

    def take(self, directory: Path) -> None:
        """Once or more often: the disk under it may be another one. Raises OSError, EBUSY where somebody else has it.

        A file system without locks is believed to have one node.
        """
        self.drop()
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._release = weakref.finalize(self, os.close, held)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                self.drop()
                raise OSError(
                    errno.EBUSY, f"another node has its clips in {directory}: give each a directory of its own"
                ) from error

    def drop(self) -> None:
        if self._release is not None:
            self._release()
