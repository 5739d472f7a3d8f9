"""What the fleet manager must not forget, in SQLite (WAL).

`State` is synchronous and lives on one thread, a `Worker`: nothing of it ever runs on the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import msgspec

from contracts.boards import Fingerprint
from contracts.messages import Audit, Certificate, Quality
from contracts.quality import Counts
from fleet.auditing.entries import Assignments, Body, Kept, Opened
from fleet.auditing.table import SCHEMA as AUDIT_SCHEMA
from fleet.auditing.table import AuditTable
from fleet.courses import Course, Standing
from fleet.judging.aims import Tally
from fleet.judging.book import Booking, Told
from fleet.old_rollouts import course_of, split
from fleet.rollouts.nodes import Node
from fleet.rollouts.plan import Plan

R = TypeVar("R")

_SCHEMA = """
CREATE TABLE nodes (
    name TEXT PRIMARY KEY, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY, node TEXT NOT NULL, region TEXT NOT NULL, lat REAL NOT NULL, lon REAL NOT NULL,
    expires_at_s REAL NOT NULL, used_at_s REAL
) WITHOUT ROWID;
CREATE TABLE bundles (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, model TEXT NOT NULL, tier TEXT NOT NULL,
    manifest BLOB NOT NULL, measurements BLOB, published_at_s REAL NOT NULL, UNIQUE (name, version)
) WITHOUT ROWID;
CREATE TABLE assignments (
    node TEXT NOT NULL, model TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (node, model)
) WITHOUT ROWID;
CREATE TABLE desired (
    node TEXT PRIMARY KEY, sequence INTEGER NOT NULL, expires_at_s REAL NOT NULL, document BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE certificates (
    stratum TEXT PRIMARY KEY, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE rollouts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL
);
CREATE TABLE audits (
    number INTEGER PRIMARY KEY, request_id TEXT NOT NULL, digest TEXT NOT NULL, stratum TEXT NOT NULL,
    node TEXT NOT NULL, agree INTEGER NOT NULL, kept INTEGER NOT NULL, UNIQUE (request_id, digest)
);
CREATE INDEX audits_of_digest ON audits (digest, number);
PRAGMA user_version = 1;
"""
_CHANGES = {
    2: """
CREATE TABLE demands (
    target TEXT PRIMARY KEY, body BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE acceptances (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, target TEXT NOT NULL, body BLOB NOT NULL,
    file BLOB NOT NULL
);
CREATE INDEX acceptances_of_target ON acceptances (target, number);
""",
    3: """
CREATE TABLE courses (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL
);
CREATE TABLE course_nodes (
    course TEXT NOT NULL, node TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (course, node)
) WITHOUT ROWID;
""",
    4: """
CREATE TABLE quality (
    digest TEXT NOT NULL, node TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (digest, node)
) WITHOUT ROWID;
""",
    5: f"""
ALTER TABLE courses ADD COLUMN plan BLOB;
{AUDIT_SCHEMA}
""",
}
"""What each later version adds to the schema, so that a database of any earlier one is brought up to it."""
_KEPT_ACCEPTANCES = 200
"""Of each target."""
_BASELINE_AUDITS = 5000
_KEPT_AUDITS = 200_000


class NodeRow(msgspec.Struct, frozen=True):
    """An enrolled node. `identity` is its signed envelope, MessagePack; `sequence` that of the identity."""

    name: str
    region: str
    lat: float
    lon: float
    url: str
    reach: Literal["public", "site"]
    public_key: str
    fingerprint: Fingerprint
    sequence: int
    identity: bytes
    enrolled_at_s: float


class TokenRow(msgspec.Struct, frozen=True):
    node: str
    region: str
    lat: float
    lon: float


class BundleRow(msgspec.Struct, frozen=True):
    """A published bundle; `manifest` and `measurements` are their JSON bytes."""

    digest: str
    name: str
    version: str
    model: str
    tier: Literal["edge", "cloud"]
    manifest: bytes
    measurements: bytes | None
    published_at_s: float

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


class DesiredRow(msgspec.Struct, frozen=True):
    """The last desired document of a node, as published: a `Signed` envelope in MessagePack."""

    node: str
    sequence: int
    expires_at_s: float
    document: bytes


class AuditTally(msgspec.Struct, frozen=True):
    """`kept_wrong`: kept at the edge although the cloud answers otherwise."""

    stratum: str
    node: str
    digest: str
    n: int
    disagreements: int
    kept_wrong: int


class Worker:
    """The thread on which state is read and written and documents are signed, one piece of work at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleet-state")

    async def run(self, work: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments))

    def close(self) -> None:
        self._thread.shutdown()


class State:
    """One database file. Group writes with `transaction`; a single write is a transaction of its own.

    `clock` gives unix time, for the audit log. `reading`: a look at what another one writes, as it is at this moment.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, reading: bool = False) -> None:
        self._clock = clock
        self._db = _opened_to_read(path) if reading else _opened(path)
        self.audit = AuditTable(self._db)
        if not reading:
            self._convert()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def write(self, beside: Callable[[State], None]) -> None:
        """All that `beside` writes, or nothing."""
        with self.transaction():
            beside(self)

    def log(self, body: Body) -> None:
        """An entry of the audit log. Call it in the transaction of what it tells of."""
        self.audit.append(self._clock(), body)

    def nodes(self) -> list[NodeRow]:
        rows = self._db.execute("SELECT body FROM nodes ORDER BY name")
        return [msgspec.msgpack.decode(body, type=NodeRow) for (body,) in rows]

    def node(self, name: str) -> NodeRow | None:
        row = self._db.execute("SELECT body FROM nodes WHERE name = ?", (name,)).fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=NodeRow)

    def put_node(self, node: NodeRow) -> None:
        self._db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?)", (node.name, msgspec.msgpack.encode(node)))

    def put_token(self, token_hash: str, token: TokenRow, expires_at_s: float) -> None:
        values = (token_hash, token.node, token.region, token.lat, token.lon, expires_at_s)
        self._db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)", values)

    def take_token(self, token_hash: str, now_s: float) -> TokenRow | None:
        """Uses a token up; None when it is unknown, used or expired."""
        row = self._db.execute(
            "UPDATE tokens SET used_at_s = ? WHERE hash = ? AND used_at_s IS NULL AND expires_at_s > ? "
            "RETURNING node, region, lat, lon",
            (now_s, token_hash, now_s),
        ).fetchone()
        return None if row is None else TokenRow(*row)

    def drop_tokens(self, expired_before_s: float) -> None:
        self._db.execute("DELETE FROM tokens WHERE expires_at_s < ?", (expired_before_s,))

    def bundle(self, name: str, version: str) -> BundleRow | None:
        row = self._db.execute("SELECT * FROM bundles WHERE name = ? AND version = ?", (name, version)).fetchone()
        return None if row is None else BundleRow(*row)

    def bundle_by_digest(self, digest: str) -> BundleRow | None:
        row = self._db.execute("SELECT * FROM bundles WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else BundleRow(*row)

    def bundles(self) -> list[BundleRow]:
        return [BundleRow(*row) for row in self._db.execute("SELECT * FROM bundles ORDER BY name, published_at_s")]

    def put_bundle(self, bundle: BundleRow) -> None:
        self._db.execute("INSERT INTO bundles VALUES (?, ?, ?, ?, ?, ?, ?, ?)", msgspec.structs.astuple(bundle))

    def put_measurements(self, digest: str, measurements: bytes) -> None:
        self._db.execute("UPDATE bundles SET measurements = ? WHERE digest = ?", (measurements, digest))

    def assigned(self, node: str) -> dict[str, str]:
        """Logical model to bundle digest."""
        return dict(self._db.execute("SELECT model, digest FROM assignments WHERE node = ?", (node,)).fetchall())

    def assignments(self) -> Assignments:
        found: Assignments = {}
        for node, model, digest in self._db.execute("SELECT node, model, digest FROM assignments ORDER BY node, model"):
            found.setdefault(node, {})[model] = digest
        return found

    def assigned_digests(self, model: str) -> dict[str, str]:
        """Node to the digest it is assigned for `model`."""
        return dict(self._db.execute("SELECT node, digest FROM assignments WHERE model = ?", (model,)).fetchall())

    def assign(self, node: str, model: str, digest: str) -> None:
        """`digest` "" takes the model away from the node."""
        if digest:
            self._db.execute("INSERT OR REPLACE INTO assignments VALUES (?, ?, ?)", (node, model, digest))
        else:
            self._db.execute("DELETE FROM assignments WHERE node = ? AND model = ?", (node, model))

    def desired(self) -> list[DesiredRow]:
        return [DesiredRow(*row) for row in self._db.execute("SELECT * FROM desired ORDER BY node")]

    def desired_sequence(self, node: str) -> int:
        """The sequence of the node's last document; 0 when it never had one."""
        row = self._db.execute("SELECT sequence FROM desired WHERE node = ?", (node,)).fetchone()
        return 0 if row is None else int(row[0])

    def put_desired(self, desired: DesiredRow) -> None:
        self._db.execute("INSERT OR REPLACE INTO desired VALUES (?, ?, ?, ?)", msgspec.structs.astuple(desired))

    def certificates(self) -> list[Certificate]:
        rows = self._db.execute("SELECT body FROM certificates ORDER BY stratum")
        return [msgspec.msgpack.decode(body, type=Certificate) for (body,) in rows]

    def add_certificate(self, certificate: Certificate) -> bool:
        """The first certificate of a stratum; False, and no change, when it has one."""
        values = (certificate.stratum, msgspec.msgpack.encode(certificate))
        return self._db.execute("INSERT OR IGNORE INTO certificates VALUES (?, ?)", values).rowcount == 1

    def courses(self) -> list[Course]:
        """Oldest first."""
        rows = self._db.execute("SELECT id, plan, body FROM courses ORDER BY number").fetchall()
        return [self._course(*row) for row in rows]

    def course(self, course_id: str) -> Course | None:
        row = self._db.execute("SELECT id, plan, body FROM courses WHERE id = ?", (course_id,)).fetchone()
        return None if row is None else self._course(*row)

    def put_course(self, course: Course) -> None:
        """Of its nodes those that have changed."""
        standing = msgspec.msgpack.encode(course.standing)
        if not self._db.execute("UPDATE courses SET body = ? WHERE id = ?", (standing, course.id)).rowcount:
            values = (course.id, msgspec.msgpack.encode(course.rollout.plan), standing)
            self._db.execute("INSERT INTO courses (id, plan, body) VALUES (?, ?, ?)", values)
        nodes = course.rollout.nodes
        self._db.executemany(
            "INSERT OR REPLACE INTO course_nodes VALUES (?, ?, ?)",
            [(course.id, name, msgspec.msgpack.encode(nodes[name])) for name in course.rollout.changed],
        )

    def _course(self, course_id: str, plan: bytes, standing: bytes) -> Course:
        rows = self._db.execute("SELECT node, body FROM course_nodes WHERE course = ?", (course_id,))
        nodes = {name: msgspec.msgpack.decode(node, type=Node) for name, node in rows}
        decoded = msgspec.msgpack.decode(plan, type=Plan), msgspec.msgpack.decode(standing, type=Standing)
        return Course.of(*decoded, nodes)

    def _convert(self) -> None:
        """What an earlier version has kept, all of it or nothing."""
        with self.transaction():
            for course_id, body in self._db.execute("SELECT id, body FROM courses WHERE plan IS NULL").fetchall():
                self._db.execute("UPDATE courses SET plan = ?, body = ? WHERE id = ?", (*split(body), course_id))
            if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'rollouts'").fetchone():
                for (body,) in self._db.execute("SELECT body FROM rollouts ORDER BY number").fetchall():
                    self.put_course(course_of(body))
                self._db.execute("DROP TABLE rollouts")
            if self.audit.mark().seq == 0:
                self.log(Opened(self.assignments(), tuple(_kept(course) for course in self.courses())))

    def demands(self) -> list[bytes]:
        return [body for (body,) in self._db.execute("SELECT body FROM demands ORDER BY target")]

    def put_demand(self, target: str, body: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO demands VALUES (?, ?)", (target, body))

    def drop_demand(self, target: str) -> bool:
        return self._db.execute("DELETE FROM demands WHERE target = ?", (target,)).rowcount == 1

    def acceptances(self) -> list[bytes]:
        """Oldest first."""
        return [body for (body,) in self._db.execute("SELECT body FROM acceptances ORDER BY number")]

    def acceptance_file(self, acceptance_id: str) -> bytes | None:
        row = self._db.execute("SELECT file FROM acceptances WHERE id = ?", (acceptance_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def put_acceptance(self, acceptance_id: str, target: str, body: bytes, file: bytes) -> bool:
        """Whether it is new: the same again changes nothing. Of each target the newest 200 are kept."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO acceptances (id, target, body, file) VALUES (?, ?, ?, ?)",
            (acceptance_id, target, body, file),
        )
        self._db.execute(
            "DELETE FROM acceptances WHERE target = ? AND number <= (SELECT number FROM acceptances "
            "WHERE target = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (target, target, _KEPT_ACCEPTANCES),
        )
        return added.rowcount == 1

    def knows_audit(self, audit: Audit) -> bool:
        """Whether this request's audit of this version is kept."""
        where = "SELECT 1 FROM audits WHERE request_id = ? AND digest = ?"
        return self._db.execute(where, (audit.request_id, audit.digest)).fetchone() is not None

    def record_audit(self, audit: Audit) -> None:
        """The same again changes nothing."""
        values = (audit.request_id, audit.digest, audit.stratum, audit.node, audit.agree, audit.kept)
        self._db.execute(
            "INSERT OR IGNORE INTO audits (request_id, digest, stratum, node, agree, kept) VALUES (?, ?, ?, ?, ?, ?)",
            values,
        )

    def forget_audits(self) -> None:
        """Keeps the newest 200,000."""
        self._db.execute("DELETE FROM audits WHERE number <= (SELECT max(number) FROM audits) - ?", (_KEPT_AUDITS,))

    def recent_tally(self, digests: frozenset[str]) -> Tally:
        """The newest 5,000 audits of the given versions, together."""
        marks = ", ".join("?" * len(digests))
        row = self._db.execute(
            f"SELECT count(*), coalesce(sum(1 - agree), 0) FROM (SELECT agree FROM audits WHERE digest IN ({marks}) "
            f"ORDER BY number DESC LIMIT {_BASELINE_AUDITS})",
            tuple(digests),
        ).fetchone()
        return Tally(*row)

    def bookings(self, told: Quality) -> list[Booking]:
        """What is new in it, of versions that the node is to serve: what it has done with others judges nothing."""
        found = []
        for digest in {*self.assigned(told.node).values()} & told.versions.keys():
            row = self._db.execute("SELECT body FROM quality WHERE digest = ? AND node = ?", (digest, told.node))
            known = row.fetchone()
            before = Told() if known is None else msgspec.msgpack.decode(known[0], type=Told)
            after = before.then(told.epoch, told.versions[digest])
            if after is not None:
                found.append(Booking(told.node, digest, *after))
        return found

    def book(self, bookings: Iterable[Booking]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO quality VALUES (?, ?, ?)",
            [(one.digest, one.node, msgspec.msgpack.encode(one.told)) for one in bookings],
        )

    def forget_quality(self) -> None:
        """Of versions that a node is no longer to serve; where it is to again, it tells its totals again."""
        self._db.execute(
            "DELETE FROM quality WHERE NOT EXISTS (SELECT 1 FROM assignments "
            "WHERE assignments.node = quality.node AND assignments.digest = quality.digest)"
        )

    def counted(self, digests: frozenset[str]) -> Counts:
        """All that nodes have told of the given versions, together."""
        marks = ", ".join("?" * len(digests))
        rows = self._db.execute(f"SELECT body FROM quality WHERE digest IN ({marks})", tuple(digests))
        return functools.reduce(
            Counts.plus, (msgspec.msgpack.decode(body, type=Told).total for (body,) in rows), Counts()
        )

    def audit_tallies(self) -> list[AuditTally]:
        rows = self._db.execute(
            "SELECT stratum, node, digest, count(*), sum(1 - agree), sum(kept * (1 - agree)) FROM audits "
            "GROUP BY stratum, node, digest ORDER BY stratum, node"
        )
        return [AuditTally(*row) for row in rows]


def _opened(path: Path) -> sqlite3.Connection:
    """With all tables of this version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA busy_timeout = 5000")
    if database.execute("PRAGMA user_version").fetchone()[0] == 0:
        database.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
    for version, change in _CHANGES.items():
        if database.execute("PRAGMA user_version").fetchone()[0] < version:
            database.executescript(f"BEGIN;{change}PRAGMA user_version = {version};COMMIT;")
    return database


def _opened_to_read(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
    database.execute("PRAGMA busy_timeout = 5000")
    database.execute("BEGIN")
    return database


def _kept(course: Course) -> Kept:
    return Kept(course.rollout.plan, course.standing, course.rollout.nodes)
