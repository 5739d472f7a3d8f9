"""A file that lines are appended to by a thread of its own: whoever notes one never waits for the disk."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

STDOUT = "-"
MOST_WAITING = 65_536
CLOSE_S = 2.0
_GATHER_S = 0.05
_AT_ONCE = 64
"""Lines rendered in one go: meanwhile the event loop waits for the interpreter."""
_MODE = 0o640


class LineFile(Generic[T]):
    """`render` makes a line of what was noted, with its line break; it is called in the thread.

    What is noted while `most` wait already is dropped, and so is what cannot be written. `path` "-" is standard output.
    Raises OSError where it cannot be opened.
    """

    def __init__(self, path: str, render: Callable[[T], bytes], *, most: int = MOST_WAITING) -> None:
        self._path = path
        self._render = render
        self._most = most
        self._file = _open(path)
        self._waiting: deque[T] = deque()
        self._overflowed = self._lost = 0
        self._well, self._puzzled = True, False
        self._torn = False
        """What is in the file ends within a line."""
        self._noted, self._closing = threading.Event(), threading.Event()
        self._reopening = False
        self._thread = threading.Thread(target=self._run, name="line-file", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._overflowed + self._lost

    def note(self, told: T) -> None:
        """Of one thread only."""
        if len(self._waiting) >= self._most:
            self._overflowed += 1
            return
        self._waiting.append(told)
        if not self._noted.is_set():
            self._noted.set()

    def reopen(self) -> None:
        """Goes on in whatever is at `path` then: who rotates the file has moved it away."""
        self._reopening = True
        self._noted.set()

    def close(self) -> None:
        """Writes what waits, for two seconds at most: a disk that hangs must not keep the process."""
        self._closing.set()
        self._noted.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._noted.wait()
            self._closing.wait(_GATHER_S)
            self._noted.clear()
            self._write_all()
        self._write_all()
        if self._path != STDOUT:
            os.close(self._file)

    def _write_all(self) -> None:
        if self._reopening:
            self._reopening = False
            self._open_again()
        while self._waiting:
            told = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._append([line for each in told if (line := self._rendered(each))])

    def _rendered(self, told: T) -> bytes:
        try:
            return self._render(told)
        except Exception:
            self._lost += 1
            if not self._puzzled:
                self._puzzled = True
                log.exception("a line for %s cannot be rendered; of others like it nothing is said", self._path)
            return b""

    def _append(self, lines: list[bytes]) -> None:
        """A line that was half written is ended before the next: readers lose one, not two."""
        data, written = b"\n" * self._torn + b"".join(lines), 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            if written:
                self._torn = data[written - 1 : written] != b"\n"
            self._lost += min(len(lines), data.count(b"\n", written))
            self._turn(well=False, why=f": {error}. Lines are dropped until it can")
        else:
            self._torn = False
            self._turn(well=True)

    def _turn(self, *, well: bool, why: str = "") -> None:
        if well != self._well:
            self._well = well
            log.warning("%s can%s be written%s", self._path, " again" if well else "not", why)

    def _open_again(self) -> None:
        if self._path == STDOUT:
            return
        try:
            file = _open(self._path)
        except OSError as error:
            log.warning("%s cannot be reopened (%s): lines still go where they went", self._path, error)
            return
        os.close(self._file)
        self._file, self._torn = file, False
        log.info("%s was reopened", self._path)


def _open(path: str) -> int:
    """Whoever else appends to it, another worker say, writes whole lines between ours. Raises OSError."""
    if path == STDOUT:
        return 1
    return os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
