"""One GeoIP database: a file, read into memory and checked before anybody is looked up in it."""

from __future__ import annotations

import os
import stat
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import BinaryIO

from router.places.client_address import Address
from router.places.located import Located
from router.places.mmdb import UNREADABLE, Mmdb
from router.places.records import located

Stamp = tuple[int, int, int]
MAX_BYTES = 1 << 30
MAX_REMEMBERED = 16_384
_WALKED_NETWORKS = 4096
_PROBES: tuple[Address, ...] = (
    *(IPv4Address(number << 24 | 0x010101) for number in range(1, 224)),
    *(IPv6Address(number << 104 | 1) for number in range(0x200000, 0x2C0000, 0x1000)),
)


class DatabaseError(Exception):
    """A file that is no database of places. The message says what it is instead, without subject and full stop."""


class Database:
    """Looks addresses up. `stamp` tells the file's version, `title` its type and the day it was built."""

    def __init__(self, mmdb: Mmdb, stamp: Stamp) -> None:
        self._mmdb = mmdb
        self._remembered: dict[int, Located | None] = {}
        self.stamp = stamp
        self.title = f"{_type(mmdb)} built {datetime.fromtimestamp(mmdb.about.build_epoch, timezone.utc):%Y-%m-%d}"

    def locate(self, address: Address) -> Located | None:
        """None for an address without a place. Raises DatabaseError where the database turns out to be damaged."""
        pointer = self._mmdb.find(address)
        if pointer is None:
            return None
        try:
            return self._remembered[pointer]
        except KeyError:
            return self._remember(pointer)

    def _remember(self, pointer: int) -> Located | None:
        """Many networks share a record, and to decode one takes ten times as long as to find it."""
        found = _located(self._mmdb, pointer)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[pointer] = found
        return found


def open_database(path: Path) -> Database:
    """Raises DatabaseError for a file that cannot be read, is too large, changes meanwhile, or holds no places."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            stamp = _checked_stamp(file)
            data = file.read(stamp[2])
            if _stamp(os.fstat(file.fileno())) != stamp or len(data) != stamp[2]:
                raise DatabaseError("changes while it is read")
    except OSError as error:
        raise DatabaseError(f"cannot be read ({error.strerror or error})") from error
    except MemoryError as error:
        raise DatabaseError("does not fit into memory") from error
    try:
        mmdb = Mmdb(data)
    except UNREADABLE as error:
        raise DatabaseError(f"is no database in MaxMind's format, or not all of one ({error})") from error
    database = Database(mmdb, stamp)
    for probe in _PROBES:
        database.locate(probe)
    if not _has_places(mmdb):
        raise DatabaseError(f"is of the type {_type(mmdb)}, whose records have no coordinates: a City one is needed")
    return database


def stamp_of(path: Path) -> Stamp | None:
    """What tells one version of a file from another; None for one that is not there."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_ino, found.st_size


def _without_waiting(path: str, flags: int) -> int:
    """A pipe under that name must not hold up whoever opens it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _checked_stamp(file: BinaryIO) -> Stamp:
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise DatabaseError("is no regular file")
    if not 0 < found.st_size <= MAX_BYTES:
        raise DatabaseError(f"has {found.st_size} bytes; a database has some, and {MAX_BYTES} at most")
    return _stamp(found)


def _has_places(mmdb: Mmdb) -> bool:
    """Whether one of the first networks has a place. A type tells less: Enterprise databases have places, too."""
    at = 0
    for _ in range(_WALKED_NETWORKS):
        pointer, fixed = mmdb.network(at)
        if pointer is not None and _located(mmdb, pointer) is not None:
            return True
        at = (at | ((1 << (mmdb.bits - fixed)) - 1)) + 1
        if at >> mmdb.bits:
            break
    return False


def _located(mmdb: Mmdb, pointer: int) -> Located | None:
    try:
        return located(mmdb.record(pointer))
    except UNREADABLE as error:
        raise DatabaseError(f"is damaged inside ({error})") from error


def _type(mmdb: Mmdb) -> str:
    return repr(mmdb.about.database_type[:80])
