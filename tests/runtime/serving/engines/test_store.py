from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from contracts.engines import EngineRecord, Machine, Shapes
from contracts.errors import FoothillError
from contracts.manifest import digest_of
from contracts.messages import Signed
from runtime.links.trust import signatures
from runtime.serving.engines.store import EngineStore, OpenRecord
from runtime.serving.engines.tensorrt_errors import EngineRefused

KEY, STRANGER = signatures.generate(), signatures.generate()
HERE = Machine("tensorrt", "10.3.0.30", "linux", "aarch64", "jetson-orin-nano", gpu="Orin", sm=87, sm_count=8)
PROFILE = (Shapes("image", (1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8)),)
ONNX = digest_of(b"onnx")
BOTH = b"both engines fit"


def open_record(signed: Signed) -> EngineRecord:
    public = signatures.public_key(KEY)
    return signatures.verify(signed, {signatures.key_id(public): public}, EngineRecord)


class Shelf:
    """A store's directory; `store` opens it as a new process would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open_record: OpenRecord = open_record

    def store(self, cap_bytes: int = 1 << 20) -> EngineStore:
        self.now_s = 1000.0
        return EngineStore(self.root, cap_bytes=cap_bytes, open_record=self.open_record, wall=lambda: self.now_s)

    def file(self, engine: str) -> Path:
        return self.root / "engines" / engine.removeprefix("sha256:")


def record_of(data: bytes) -> EngineRecord:
    return EngineRecord(ONNX, digest_of(data), len(data), "options", "int8", HERE, PROFILE)


def put(store: EngineStore, data: bytes, *, key: bytes = KEY, claims: EngineRecord | None = None) -> EngineRecord:
    with store.room() as room:
        (room / "engine").write_bytes(data)
        return store.add(signatures.sign(claims or record_of(data), key), room / "engine")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "engines")


def test_an_engine_outlives_its_process_with_its_signed_record(shelf: Shelf) -> None:
    record = put(shelf.store(), b"engine")
    again = shelf.store()
    assert again.records() == [record]
    assert again.path(record).read_bytes() == b"engine"
    assert open_record(again.envelope(record.engine)) == record


def test_an_engine_that_nobody_known_signed_is_not_taken(shelf: Shelf) -> None:
    store = shelf.store()
    with pytest.raises(FoothillError, match="does not allow") as refused:
        put(store, b"engine", key=STRANGER)
    assert refused.value.code == "forbidden"
    assert store.records() == []


def test_a_file_that_is_not_its_records_is_not_taken(shelf: Shelf) -> None:
    store = shelf.store()
    with pytest.raises(EngineRefused, match="is not the engine"):
        put(store, b"other", claims=record_of(b"engine"))
    assert store.records() == []


def test_an_engine_that_changed_on_the_disk_is_dropped_instead_of_loaded(shelf: Shelf) -> None:
    store = shelf.store()
    record = put(store, b"engine")
    shelf.file(record.engine).write_bytes(b"EVIL!!")
    with pytest.raises(EngineRefused, match="changed on this disk"):
        store.path(record)
    assert store.records() == []


def test_a_record_that_was_altered_is_dropped_with_its_engine(shelf: Shelf) -> None:
    store = shelf.store()
    record = put(store, b"engine")
    path = shelf.root / "records" / record.engine.removeprefix("sha256:")
    forged = msgspec.structs.replace(record, weight_stripped=True)
    path.write_bytes(msgspec.msgpack.encode(signatures.sign(forged, STRANGER)))
    assert store.records() == []
    assert not shelf.file(record.engine).exists()
    put(store, b"engine")
    path.write_bytes(b"\xc1")
    assert store.records() == []


def test_an_engine_whose_keys_are_not_known_yet_waits(shelf: Shelf) -> None:
    put(shelf.store(), b"engine")

    def away(_: Signed) -> EngineRecord:
        raise FoothillError("unavailable", "The fleet is away.")

    shelf.open_record = away
    assert shelf.store().records() == []
    shelf.open_record = open_record
    assert len(shelf.store().records()) == 1


def test_what_was_longest_not_used_makes_room_first(shelf: Shelf) -> None:
    store = shelf.store(cap_bytes=len(BOTH) * 2)
    old, new, last = (put(store, BOTH[:-1] + bytes([index])) for index in range(3))
    for age, record in enumerate((last, new, old)):
        os.utime(shelf.file(record.engine), (1000 - age, 1000 - age))
    store.path(old)
    store.collect(keep=[])
    assert {one.engine for one in store.records()} == {old.engine, last.engine}


def test_what_is_in_use_is_never_collected(shelf: Shelf) -> None:
    store = shelf.store(cap_bytes=1)
    used, idle = put(store, b"used"), put(store, b"idle")
    store.add_timings(b"timings", HERE)
    store.collect(keep=[used.engine])
    assert store.records() == [used]
    assert store.timings() == []
    assert not shelf.file(idle.engine).exists()


def test_timings_replace_those_of_the_same_machine(shelf: Shelf) -> None:
    store = shelf.store()
    other = msgspec.structs.replace(HERE, power_mode="25W")
    store.add_timings(b"first", HERE)
    store.add_timings(b"others", other)
    shelf.now_s = 2000.0
    store.add_timings(b"first and second", HERE)
    found = {one.machine: one for one in shelf.store().timings()}
    assert set(found) == {HERE, other}
    assert found[HERE].at_s == 2000.0
    path = store.timings_path(found[HERE])
    assert path is not None
    assert path.read_bytes() == b"first and second"


def test_timings_that_are_not_whole_are_dropped(shelf: Shelf) -> None:
    store = shelf.store()
    store.add_timings(b"timings", HERE)
    (record,) = store.timings()
    (shelf.root / "timings" / record.cache.removeprefix("sha256:")).write_bytes(b"torn")
    assert store.timings_path(record) is None
    assert store.timings() == []


def test_what_a_crash_left_is_cleared(shelf: Shelf) -> None:
    store = shelf.store()
    record = put(store, b"engine")
    (shelf.root / "room.left").mkdir()
    (shelf.root / "engines" / ("0" * 64)).write_bytes(b"without a record")
    (shelf.root / "records" / f"{'1' * 64}.new").write_bytes(b"half")
    store = shelf.store()
    assert store.records() == [record]
    assert sorted(path.name for path in shelf.root.iterdir()) == ["engines", "records", "timings"]
    assert len(list((shelf.root / "engines").iterdir())) == len(list((shelf.root / "records").iterdir())) == 1
