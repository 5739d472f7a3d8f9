"""Built engines on a node's disk: only signed ones, whole ones, and no more than fit."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.engines import EngineRecord, Machine, TimingCacheRecord
from contracts.errors import FoothillError
from contracts.manifest import digest_of, is_digest
from contracts.messages import Signed, decode, encode
from runtime.links.process.durable import TEMPORARY_SUFFIX, sync_directory, write_file
from runtime.serving.engines.tensorrt_errors import EngineRefused

log = logging.getLogger(__name__)

OpenRecord = Callable[[Signed], EngineRecord]
"""The record inside an envelope, once its signature was found good. Raises FoothillError: `forbidden` for ever, a
retryable one when nobody can tell yet."""

_READ_BYTES = 1 << 20


class EngineStore:
    """`engines/<hex>` are engine files, `records/<hex>` their signed records, `timings/<hex>` timings with their own.

    A file is shown only after its record is there and its digest was checked. One process a directory; synchronous.
    """

    def __init__(
        self, root: Path, *, cap_bytes: int, open_record: OpenRecord, wall: Callable[[], float] = time.time
    ) -> None:
        """Clears what a crash left: half-written files, rooms, and engines without a record."""
        self._root = root
        self._engines, self._records, self._timings = root / "engines", root / "records", root / "timings"
        for directory in (self._engines, self._records, self._timings):
            directory.mkdir(parents=True, exist_ok=True)
        self._cap_bytes = cap_bytes
        self._open_record = open_record
        self._wall = wall
        self._sweep()

    def records(self) -> list[EngineRecord]:
        """Every engine at hand whose signature holds now. One whose signature is wrong is dropped."""
        found = []
        for path in sorted(self._records.iterdir()):
            record = self._opened(path)
            if record is not None:
                found.append(record)
        return found

    def envelope(self, engine: str) -> Signed:
        """The signed record of an engine at hand. Raises FoothillError `not_found`."""
        try:
            return decode(self._record(engine).read_bytes(), Signed)
        except FileNotFoundError as error:
            raise FoothillError("not_found", f"Engine {engine} is not in the store.") from error

    def path(self, record: EngineRecord) -> Path:
        """The engine's file, every byte of it checked just now. Raises EngineRefused, and drops it, when it changed."""
        path = self._engine(record.engine)
        if not path.exists() or digest_of_file(path) != record.engine:
            self.drop(record.engine)
            raise EngineRefused(
                f"Engine {record.engine} changed on this disk, or is gone. It is built or fetched again."
            )
        os.utime(path)
        return path

    def add(self, envelope: Signed, file: Path) -> EngineRecord:
        """Takes `file`, which lies in a room of this store. Raises FoothillError `forbidden`, or EngineRefused."""
        record = self._open_record(envelope)
        if file.stat().st_size != record.bytes or digest_of_file(file) != record.engine:
            raise EngineRefused(
                f"{file.name} is not the engine {record.engine} of its record. Fetch or build it again."
            )
        with file.open("rb") as written:
            os.fsync(written.fileno())
        write_file(self._record(record.engine), encode(envelope))
        os.replace(file, self._engine(record.engine))
        sync_directory(self._engines)
        return record

    def drop(self, engine: str) -> None:
        for path in (self._engine(engine), self._record(engine)):
            path.unlink(missing_ok=True)

    def timings(self) -> list[TimingCacheRecord]:
        found = []
        for path in sorted(self._timings.glob("*.json")):
            record = _read_timings(path)
            if record is not None and path.with_suffix("").exists():
                found.append(record)
        return found

    def timings_path(self, record: TimingCacheRecord) -> Path | None:
        """None, and they are dropped, when they are not whole."""
        path = self._timings / _hex(record.cache)
        if path.exists() and digest_of_file(path) == record.cache:
            os.utime(path)
            return path
        self._drop_timings(path)
        return None

    def add_timings(self, data: bytes, machine: Machine) -> None:
        """In place of all that came from the very same machine: a builder gives back what it was given, and more."""
        record = TimingCacheRecord(digest_of(data), len(data), machine, self._wall())
        path = self._timings / _hex(record.cache)
        for older in self.timings():
            if older.machine == machine and older.cache != record.cache:
                self._drop_timings(self._timings / _hex(older.cache))
        write_file(path, data)
        write_file(path.with_suffix(".json"), msgspec.json.encode(record))

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A directory to build or fetch into, on the same file system; cleared afterwards."""
        room = Path(tempfile.mkdtemp(prefix="room.", dir=self._root))
        try:
            yield room
        finally:
            shutil.rmtree(room, ignore_errors=True)

    def collect(self, keep: Collection[str]) -> None:
        """Drops the engines and timings that were longest not used until the rest fits; never those of `keep`."""
        kept = {_hex(digest) for digest in keep}
        files = [path for folder in (self._engines, self._timings) for path in folder.iterdir() if not path.suffix]
        files.sort(key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in files)
        for path in files:
            if size <= self._cap_bytes:
                return
            if path.name not in kept:
                size -= path.stat().st_size
                log.info("engine store: %s %s makes room", path.parent.name, path.name[:12])
                self.drop(f"sha256:{path.name}") if path.parent == self._engines else self._drop_timings(path)

    def _opened(self, path: Path) -> EngineRecord | None:
        try:
            record = self._open_record(decode(path.read_bytes(), Signed))
        except FoothillError as error:
            if not error.retryable:
                log.error("engine record %s is dropped: %s", path.name[:12], error.message)
                self.drop(f"sha256:{path.name}")
            return None
        file = self._engine(record.engine)
        whole = _hex(record.engine) == path.name and file.exists() and file.stat().st_size == record.bytes
        if not whole:
            self.drop(f"sha256:{path.name}")
        return record if whole else None

    def _engine(self, engine: str) -> Path:
        return self._engines / _hex(engine)

    def _record(self, engine: str) -> Path:
        return self._records / _hex(engine)

    def _drop_timings(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)

    def _sweep(self) -> None:
        for room in self._root.glob("room.*"):
            shutil.rmtree(room, ignore_errors=True)
        for folder in (self._records, self._timings):
            for torn in folder.glob(f"*{TEMPORARY_SUFFIX}"):
                torn.unlink()
        for engine in self._engines.iterdir():
            if not (self._records / engine.name).exists():
                engine.unlink()


def digest_of_file(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_READ_BYTES):
            hashed.update(chunk)
    return "sha256:" + hashed.hexdigest()


def _read_timings(path: Path) -> TimingCacheRecord | None:
    try:
        record = msgspec.json.decode(path.read_bytes(), type=TimingCacheRecord)
    except UNREADABLE as error:
        log.warning("timings %s cannot be read: %s", path.name[:12], error)
        return None
    return record if path.stem == _hex(record.cache) else None


def _hex(digest: str) -> str:
    if not is_digest(digest):
        raise FoothillError("bad_request", f"{digest[:80]!r} is not a digest sha256:<64 hex digits>.")
    return digest.removeprefix("sha256:")
