"""Doubtful inputs that wait for the cloud, and its late answers, in one bounded SQLite file (WAL).

Synchronous, for one thread. A process that is killed, or a power cut, leaves whole rows or none.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from contracts.decoding import UNREADABLE
from runtime.links.http.upstream import Request

_K = TypeVar("_K")

Kept = Literal["kept", "known", "too-large", "full", "conflict"]
"""What became of an input: `known` is the same one again, `conflict` another one under a taken id."""

Full = Literal["oldest", "newest"]

_SCHEMA = """
CREATE TABLE inputs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, request_id TEXT NOT NULL, at_s REAL NOT NULL,
    bytes INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, content BLOB NOT NULL, head BLOB NOT NULL,
    body BLOB NOT NULL, UNIQUE (tenant, request_id)
);
CREATE INDEX inputs_in_turn ON inputs (attempts, number);
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, request_id TEXT NOT NULL, at_s REAL NOT NULL,
    bytes INTEGER NOT NULL, published INTEGER NOT NULL DEFAULT 0, content BLOB NOT NULL, head BLOB NOT NULL,
    body BLOB NOT NULL, UNIQUE (tenant, request_id)
);
CREATE INDEX answers_to_publish ON answers (published, number);
PRAGMA user_version = 1;
"""
_OURS = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name IN ('inputs', 'answers')"
_ROW_BYTES = 512
"""What a row takes besides its contents, generously."""
_PAGE_BYTES = 4096
_SLACK_BYTES = 4 << 20
_SET_CLOCK_S = 1_600_000_000.0
"""No clock that was ever set shows less."""


class SpoolConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[spool]`. `max_bytes` 0 keeps nothing; it bounds inputs and answers together.

    `full`: what gives way when there is no room, the `oldest` input or the `newest`, which is then not taken.
    """

    max_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 256 << 20
    max_inputs: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    max_age_s: Annotated[float, Meta(gt=0)] = 86_400.0
    keep_answers_s: Annotated[float, Meta(gt=0)] = 86_400.0
    full: Full = "oldest"
    per_s: Annotated[float, Meta(gt=0, le=10_000)] = 5.0


class Doubtful(msgspec.Struct, frozen=True):
    """An input that the edge was not sure of. `request` is what the cloud is asked, without the caller's credentials.

    `tenant` and `request_id` name it; `confidence`, `stratum` and `answer` are those of the edge (None and "" where it
    told none). `residency` names the only regions that may have it; empty is no claim. `at_s` is unix time. `note` is
    for whoever hears the late answer in this process, or in its next life: it goes nowhere else.
    """

    tenant: str
    request_id: str
    model: str
    request: Request
    at_s: float
    stratum: str = ""
    confidence: float | None = None
    answer: str = ""
    residency: tuple[str, ...] = ()
    note: bytes = b""


class LateAnswer(msgspec.Struct, frozen=True):
    """What the cloud said to a doubtful input, and its `note`. `headers` are those that its caller may see."""

    tenant: str
    request_id: str
    model: str
    stratum: str
    confidence: float | None
    edge_answer: str
    cloud_answer: str
    spooled_at_s: float
    answered_at_s: float
    headers: dict[str, str]
    body: bytes
    note: bytes = b""


class Figures(msgspec.Struct, frozen=True):
    """`oldest_at_s` is unix time; None when nothing waits."""

    inputs: int
    answers: int
    bytes: int
    oldest_at_s: float | None


class SpoolFile:
    """Opens or makes `path`, readable by its owner only. `wall` gives unix time. `dropped` counts reasons.

    Raises sqlite3.OperationalError when the disk is full or fails, sqlite3.DatabaseError when the file is no spool.
    """

    def __init__(self, path: Path, config: SpoolConfig, wall: Callable[[], float]) -> None:
        self._config = config
        self._wall = wall
        self.dropped: Counter[str] = Counter()
        _make_private(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
            self._inputs = self._count("SELECT COUNT(*) FROM inputs")
            self._bytes = self._count("SELECT (SELECT TOTAL(bytes) FROM inputs) + (SELECT TOTAL(bytes) FROM answers)")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def put(self, inputs: Sequence[Doubtful]) -> list[Kept]:
        """Keeps inputs in one transaction; on return they are on the disk."""
        with self._transaction():
            return [self._put(each) for each in inputs]

    def next(self) -> Doubtful | None:
        """The oldest; those that were tried in vain come after those that were not."""
        row = self._db.execute("SELECT head, body FROM inputs ORDER BY attempts, number LIMIT 1").fetchone()
        return _input(*row) if row is not None else None

    def failed(self, tried: Doubtful) -> int:
        """Counts an attempt in vain, and tells how many there were."""
        key = (tried.tenant, tried.request_id)
        with self._transaction():
            self._db.execute("UPDATE inputs SET attempts = attempts + 1 WHERE tenant = ? AND request_id = ?", key)
        return self._count("SELECT TOTAL(attempts) FROM inputs WHERE tenant = ? AND request_id = ?", key)

    def drop(self, refused: Doubtful, reason: str) -> None:
        with self._transaction():
            self._remove("inputs", "tenant = ? AND request_id = ?", (refused.tenant, refused.request_id), reason)

    def answer(self, asked: Doubtful, late: LateAnswer) -> None:
        """Replaces an input by its answer, in one step. An answer without room counts as told, and is not kept."""
        head, size = _packed(late)
        key = (late.tenant, late.request_id)
        with self._transaction():
            content = _content(asked)
            self._remove("inputs", "tenant = ? AND request_id = ?", key, "")
            self._remove("answers", "tenant = ? AND request_id = ?", key, "")
            if self._make_room(size, 0):
                row = (*key, late.answered_at_s, size, content, head, late.body)
                self._db.execute(
                    "INSERT INTO answers (tenant, request_id, at_s, bytes, content, head, body)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                self._bytes += size

    def find(self, tenant: str, request_id: str) -> LateAnswer | Doubtful | None:
        """The late answer, or the input that waits for one."""
        key = (tenant, request_id)
        row = self._db.execute("SELECT head, body FROM answers WHERE tenant = ? AND request_id = ?", key).fetchone()
        if row is not None:
            return _answer(*row)
        row = self._db.execute("SELECT head, body FROM inputs WHERE tenant = ? AND request_id = ?", key).fetchone()
        return _input(*row) if row is not None else None

    def unpublished(self) -> LateAnswer | None:
        """The oldest answer that nobody was told of."""
        row = self._db.execute("SELECT head, body FROM answers WHERE published = 0 ORDER BY number LIMIT 1").fetchone()
        return _answer(*row) if row is not None else None

    def untold(self) -> list[tuple[str, str]]:
        """Tenant and request id of every answer that is not published, the oldest first."""
        query = "SELECT tenant, request_id FROM answers WHERE published = 0 ORDER BY number"
        return [(tenant, request_id) for tenant, request_id in self._db.execute(query)]

    def published(self, late: LateAnswer) -> None:
        key = (late.tenant, late.request_id)
        with self._transaction():
            self._db.execute("UPDATE answers SET published = 1 WHERE tenant = ? AND request_id = ?", key)

    def expire(self) -> None:
        """Drops what is too old. A board without a battery starts in 1970: what it kept then is dated anew."""
        now_s = self._wall()
        with self._transaction():
            if now_s > _SET_CLOCK_S:
                for table in ("inputs", "answers"):
                    self._db.execute(f"UPDATE {table} SET at_s = ? WHERE at_s < ?", (now_s, _SET_CLOCK_S))
            self._remove("inputs", "at_s < ?", (now_s - self._config.max_age_s,), "age")
            self._remove("answers", "at_s < ?", (now_s - self._config.keep_answers_s,), "")
        self._db.executescript("PRAGMA incremental_vacuum(256);")  # `execute` takes one step of it: a single page

    def figures(self) -> Figures:
        oldest = self._db.execute("SELECT MIN(at_s) FROM inputs").fetchone()[0]
        return Figures(self._inputs, self._count("SELECT COUNT(*) FROM answers"), self._bytes, oldest)

    def _prepare(self) -> None:
        """Each commit reaches the disk (synchronous FULL); the file itself cannot grow far beyond its bound."""
        pages = (2 * self._config.max_bytes + _SLACK_BYTES) // _PAGE_BYTES
        for pragma in (
            "busy_timeout = 1000",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = FAST",
            f"max_page_count = {pages}",
            f"journal_size_limit = {_SLACK_BYTES}",
        ):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        version = self._count("PRAGMA user_version")
        if version == 0:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif version != 1:
            raise sqlite3.DatabaseError(f"it is of a later version ({version})")
        elif self._count(_OURS) != 2:
            raise sqlite3.DatabaseError("its tables are missing")

    def _put(self, doubtful: Doubtful) -> Kept:
        content, key = _content(doubtful), (doubtful.tenant, doubtful.request_id)
        known = self._db.execute(
            "SELECT content FROM inputs WHERE tenant = ?1 AND request_id = ?2"
            " UNION ALL SELECT content FROM answers WHERE tenant = ?1 AND request_id = ?2",
            key,
        ).fetchone()
        if known is not None:
            return "known" if known[0] == content else "conflict"
        head, size = _packed(doubtful)
        if size > self._config.max_bytes:
            return "too-large"
        if not self._make_room(size, 1):
            return "full"
        self._db.execute(
            "INSERT INTO inputs (tenant, request_id, at_s, bytes, content, head, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, doubtful.at_s, size, content, head, doubtful.request.body),
        )
        self._inputs += 1
        self._bytes += size
        return "kept"

    def _make_room(self, size: int, inputs: int) -> bool:
        """Answers that were told already go first, oldest first; then, for an input, as `full` says."""
        while self._bytes + size > self._config.max_bytes:
            if not self._remove("answers", _FIRST.format(table="answers", by="published DESC, number"), (), ""):
                break
        while self._bytes + size > self._config.max_bytes or self._inputs + inputs > self._config.max_inputs:
            if not inputs or self._config.full == "newest":
                return False
            if not self._remove("inputs", _FIRST.format(table="inputs", by="number"), (), "full"):
                return False
        return True

    def _remove(self, table: str, where: str, values: Sequence[object], reason: str) -> int:
        """Returns how many rows went; inputs that go for a `reason` are counted under it."""
        rows = self._db.execute(f"DELETE FROM {table} WHERE {where} RETURNING bytes", values).fetchall()
        self._bytes -= sum(row[0] for row in rows)
        if table == "inputs":
            self._inputs -= len(rows)
            if reason and rows:
                self.dropped[reason] += len(rows)
        return len(rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, the counters too: what failed for a full disk was not done."""
        before = (self._inputs, self._bytes, self.dropped.copy())
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._inputs, self._bytes, self.dropped = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _count(self, query: str, values: Sequence[object] = ()) -> int:
        return int(self._db.execute(query, values).fetchone()[0])


_FIRST = "number = (SELECT number FROM {table} ORDER BY {by} LIMIT 1)"


def _content(doubtful: Doubtful) -> bytes:
    """Tells an input from another one that a caller sends under the same id."""
    told = f"{doubtful.request.method} {doubtful.request.path}\n".encode()
    return hashlib.sha256(told + doubtful.request.body).digest()


def _packed(kept: Doubtful | LateAnswer) -> tuple[bytes, int]:
    """All but the body, and the bytes that count."""
    if isinstance(kept, Doubtful):
        bare = msgspec.structs.replace(kept, request=msgspec.structs.replace(kept.request, body=b""))
        head, body = msgspec.msgpack.encode(bare), kept.request.body
    else:
        head, body = msgspec.msgpack.encode(msgspec.structs.replace(kept, body=b"")), kept.body
    return head, len(head) + len(body) + _ROW_BYTES


def _input(head: bytes, body: bytes) -> Doubtful:
    bare = _decoded(head, Doubtful)
    return msgspec.structs.replace(bare, request=msgspec.structs.replace(bare.request, body=body))


def _answer(head: bytes, body: bytes) -> LateAnswer:
    return msgspec.structs.replace(_decoded(head, LateAnswer), body=body)


def _decoded(head: bytes, kind: type[_K]) -> _K:
    try:
        return msgspec.msgpack.decode(head, type=kind)
    except UNREADABLE as error:
        raise sqlite3.DatabaseError(f"a row cannot be read: {error}") from error


def _make_private(path: Path) -> None:
    """Before SQLite makes it for others to read; its WAL gets the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    os.chmod(path, 0o600)
