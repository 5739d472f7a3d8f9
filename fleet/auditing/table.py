"""Where the audit log is kept: a table that takes new entries and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from fleet.auditing.chain import START, Entry, Mark, link
from fleet.auditing.entries import Body

SCHEMA = """
CREATE TABLE audit_log (
    seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, hash TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log takes new entries only'); END;
CREATE TRIGGER audit_log_is_not_shortened BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log takes new entries only'); END;
"""


class AuditTable:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def append(self, at_s: float, body: Body) -> None:
        """Call it in the transaction of what it tells of."""
        entry = link(self.mark(), at_s, body)
        values = (entry.seq, entry.at_s, entry.hash, bytes(entry.body))
        self._db.execute("INSERT INTO audit_log VALUES (?, ?, ?, ?)", values)

    def mark(self) -> Mark:
        row = self._db.execute("SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1").fetchone()
        return START if row is None else Mark(*row)

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """In order, those above the number `after`."""
        rows = self._db.execute("SELECT seq, at_s, hash, body FROM audit_log WHERE seq > ? ORDER BY seq", (after,))
        for seq, at_s, hash_, body in rows:
            yield Entry(seq, at_s, msgspec.Raw(body), hash_)
