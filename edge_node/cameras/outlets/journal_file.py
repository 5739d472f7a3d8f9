"""Messages that wait for somebody, by number, in one SQLite file (WAL).

Synchronous, for one thread. A process that is killed, or a power cut, leaves whole rows or none.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE messages (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""
_PRAGMAS = (
    "busy_timeout = 1000",
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",
    "journal_size_limit = 1048576",
)
_MOST_UNUSED_PAGES = 128
_SUFFIXES = ("", "-wal", "-shm")


class JournalFile:
    """Opens or makes `path`, readable by its owner only; one that is no such file is set aside, once, as `….bad`.

    Raises OSError and sqlite3.Error, as all methods do, where the disk is full or fails.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError as error:
            if not is_no_database(error):
                raise
            set_aside(path, error)
            self._db = _opened(path)

    def close(self) -> None:
        self._db.close()

    def read(self) -> list[tuple[int, bytes]]:
        """All, the oldest first."""
        return self._db.execute("SELECT number, body FROM messages ORDER BY number").fetchall()

    def write(self, fresh: Iterable[tuple[int, bytes]], over: Iterable[int]) -> None:
        """Adds some and takes others away, in one step; on return that is on the disk."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("DELETE FROM messages WHERE number = ?", ((number,) for number in over))
            self._db.executemany("INSERT OR REPLACE INTO messages (number, body) VALUES (?, ?)", fresh)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        (unused,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if unused > _MOST_UNUSED_PAGES:
            self._db.executescript("PRAGMA incremental_vacuum;")  # `execute` takes one step of it: a single page


def is_no_database(error: sqlite3.Error) -> bool:
    """What SQLite cannot read has this very class; a full disk or a wrong query has one of its own."""
    return type(error) is sqlite3.DatabaseError


def set_aside(path: Path, why: sqlite3.Error) -> None:
    """For whoever wants to look. Raises OSError."""
    log.error("%s cannot be read (%s): moved to %s.bad, begun anew", path, why, path.name)
    for suffix in _SUFFIXES:
        old = path.with_name(path.name + suffix)
        if old.exists():
            os.replace(old, path.with_name(f"{path.name}.bad{suffix}"))


def remove(path: Path) -> None:
    """Raises OSError."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _opened(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}").fetchall()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(_SCHEMA)
        elif version != 1:
            raise sqlite3.DatabaseError(f"it is of a later version ({version})")
        db.execute("SELECT number, body FROM messages LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db
