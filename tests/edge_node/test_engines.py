from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.engines import EngineRecord, Machine, engine_artifact, wanted_of
from contracts.errors import FoothillError
from contracts.manifest import FILE, Artifact, File, Golden, Manifest, digest_of, encode
from contracts.messages import Signed
from edge_node.engine_source import EngineSource, NoShared, Shared, Vitals
from edge_node.engines import Engines
from runtime.links import signatures
from runtime.serving.cuda import Cuda
from runtime.serving.engine_store import EngineStore
from runtime.serving.engine_trials import TrialFile
from runtime.serving.tensorrt_build import BuiltFile
from runtime.serving.tensorrt_builder import record_of
from runtime.serving.tensorrt_engine import TensorRtEngine
from runtime.serving.tensorrt_errors import BuildFailed, ModelRefused
from runtime.serving.tensorrt_module import Installed
from runtime.serving.tensorrt_options import BuildOptions
from tests.edge_node.bundle_factory import MODEL_FILE, Array, describe
from tests.edge_node.workbench import Bench, Warehouse, desired, until
from tests.runtime.serving.fake_cuda import FakeLibcuda, FakeTrtRuntime, plan_file

TRT_FILE = "trt.s8.onnx"
HERE = Machine("tensorrt", "10.3.0", "linux", "x86_64", "cpu-x86", gpu="g", sm=89, sm_count=128)
NODE_KEY, FLEET_KEY, STRANGER = signatures.generate(), signatures.generate(), signatures.generate()
KEYS = {signatures.key_id(public): public for public in map(signatures.public_key, (NODE_KEY, FLEET_KEY))}
COOL = Vitals(free_bytes=16 << 30, temperature_c=45.0)
CPU = "CPUExecutionProvider"
TRT = "tensorrt 10.3.0"


def with_tensorrt(directory: Path) -> str:
    """Adds an artifact to build an engine from, with the golden outputs of the others; returns the bundle's digest."""
    manifest = describe(directory)
    content = b"onnx for tensorrt of version " + manifest.version.encode()
    golden = f"golden/{TRT_FILE}/logits.npy"
    outputs = (directory / manifest.golden.outputs[MODEL_FILE]["logits"]).read_bytes()
    for name, data in {TRT_FILE: content, golden: outputs}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
        manifest.files[name] = File(digest_of(data), len(data))
    changed = msgspec.structs.replace(
        manifest,
        artifacts=(*manifest.artifacts, Artifact(TRT_FILE, "int8", "tensorrt", ("cpu-x86",))),
        golden=Golden(
            manifest.golden.inputs, {**manifest.golden.outputs, TRT_FILE: {"logits": golden}}, atol=1e-3, rtol=1e-3
        ),
    )
    data = encode(changed)
    (directory / FILE).write_bytes(data)
    return digest_of(data)


class Builder:
    """Builds what the bundle's network is: one matrix. `waits` holds builds back, `error` makes them fail."""

    def __init__(self) -> None:
        self.built: list[Path] = []
        self.error: FoothillError | None = None
        self.waits = asyncio.Event()
        self.waits.set()
        self.timings: list[bytes] = []

    async def build(
        self, onnx: Path, options: BuildOptions, machine: Machine, room: Path, timings: Path | None
    ) -> BuiltFile:
        self.built.append(onnx)
        self.timings.append(_content(timings))
        await self.waits.wait()
        if self.error is not None:
            raise self.error
        return _build(onnx, options, machine, room)


def _content(path: Path | None) -> bytes:
    return b"" if path is None else path.read_bytes()


def _build(onnx: Path, options: BuildOptions, machine: Machine, room: Path) -> BuiltFile:
    version = onnx.read_bytes().rpartition(b" ")[2].decode()
    data = plan_file(room / "engine", weights_of(int(version)))
    (room / "timings").write_bytes(b"timings of " + version.encode())
    return BuiltFile(room / "engine", record_of(data, onnx, options, machine), room / "timings", 1.0, ())


def weights_of(seed: int) -> Array:
    """Those of the bundle that `pack` makes with this seed."""
    return np.random.default_rng(seed).normal(size=(64, 10)).astype(np.float32)


class Fleet(NoShared):
    """What other nodes have left."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[Signed, bytes]] = {}
        self.away = False
        self.offered: list[str] = []

    def add(self, record: EngineRecord, data: bytes, key: bytes = FLEET_KEY) -> None:
        self.there[record.engine] = (signatures.sign(record, key), data)

    async def find(self, onnx: str) -> list[Shared]:
        if self.away:
            raise FoothillError("unavailable", "The fleet is away.")
        found = [
            Shared(signed, msgspec.msgpack.decode(signed.payload, type=EngineRecord))
            for signed, _ in self.there.values()
        ]
        return [one for one in found if one.record.onnx == onnx]

    async def fetch(self, record: EngineRecord, path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, self.there[record.engine][1])

    async def offer(self, envelope: Signed, path: Path) -> None:
        self.offered.append(digest_of(_content(path)))


class Life:
    """One life of a node with a GPU; another on the same directory is its next life."""

    def __init__(self, directory: Path, rig: Rig) -> None:
        self.bench = Bench(directory, rig.warehouse)
        self.trials = TrialFile(directory / "trials.json")
        self.store = EngineStore(directory / "engines", cap_bytes=1 << 20, open_record=open_record)
        self.naps: list[float] = []
        self.source = EngineSource(
            machine=HERE,
            store=self.store,
            trials=self.trials,
            shared=rig.fleet,
            build=rig.builder.build,
            sign=lambda record: signatures.sign(record, NODE_KEY),
            vitals=lambda: rig.vitals,
        )
        self.engines = Engines(
            source=self.source,
            open_engine=rig.open_engine,
            bundles=self.bench.store,
            host=self.bench.host,
            updater=self.bench.updater,
            target="cpu-x86",
            threads=1,
            sleep=self._nap,
        )

    async def serve(self, digest: str, sequence: int = 1) -> None:
        assert await self.bench.updater.apply(desired(sequence, {"digits": digest}), {})

    @property
    def provider(self) -> str:
        return self.bench.host.reports()["digits"].provider

    async def reaches(self, provider: str) -> None:
        await until(lambda: self.provider == provider)

    async def settles(self) -> None:
        """Until all work on engines has ended."""
        await until(lambda: not self.engines._work)

    async def end(self) -> None:
        await self.engines.stop()
        await self.bench.updater.stop()
        await self.bench.host.close()

    async def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0.02)


class Rig:
    """What outlives a node's lives: its board, its bundles, its fleet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.warehouse = Warehouse(directory / "packed")
        self.builder = Builder()
        self.fleet = Fleet()
        self.gpu = FakeLibcuda()
        self.module = FakeTrtRuntime()
        self.vitals = COOL
        self._lives: list[Life] = []

    def pack(self, version: str) -> str:
        directory = self.warehouse.packed[self.warehouse.pack(version)]
        digest = with_tensorrt(directory)
        self.warehouse.packed[digest] = directory
        return digest

    async def live(self) -> Life:
        life = Life(self.directory / "node", self)
        self._lives.append(life)
        await life.bench.updater.restore()
        life.engines.start()
        return life

    def open_engine(self, path: Path, record: EngineRecord, onnx: Path) -> TensorRtEngine:
        installed = Installed("tensorrt", self.module, self.module.__version__)
        return TensorRtEngine(path, record, onnx, installed=installed, cuda=Cuda(self.gpu))

    async def end(self) -> None:
        for life in self._lives:
            await life.end()


def open_record(signed: Signed) -> EngineRecord:
    return signatures.verify(signed, KEYS, EngineRecord)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.end()


def manifest_of(rig: Rig, digest: str) -> Manifest:
    return describe(rig.warehouse.packed[digest])


def foreign(rig: Rig, digest: str, tmp_path: Path, **changes: object) -> tuple[EngineRecord, bytes]:
    """An engine that another node has built for this bundle."""
    manifest = manifest_of(rig, digest)
    artifact = engine_artifact(manifest, "cpu-x86")
    assert artifact is not None
    wanted = wanted_of(manifest, artifact)
    data = plan_file(tmp_path / "foreign", weights_of(int(manifest.version)))
    machine = msgspec.structs.replace(HERE, **changes)
    record = EngineRecord(wanted.onnx, digest_of(data), len(data), "options", "int8", machine, wanted.profile)
    return record, data


async def test_onnx_runtime_serves_while_an_engine_is_built_and_then_the_engine_does(rig: Rig) -> None:
    rig.builder.waits.clear()
    life = await rig.live()
    digest = rig.pack("1")
    await life.serve(digest)
    await until(lambda: bool(rig.builder.built))
    assert life.provider == CPU
    await life.bench.ask()
    rig.builder.waits.set()
    await life.reaches(TRT)
    await life.bench.ask()
    report = life.bench.host.reports()["digits"]
    assert (report.digest, report.artifact) == (digest, TRT_FILE)
    assert life.bench.report().phase == "active"


async def test_the_next_life_loads_what_was_built_and_builds_nothing(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.end()
    again = await rig.live()
    await again.reaches(TRT)
    assert len(rig.builder.built) == 1


async def test_timings_of_one_build_help_the_next(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.serve(rig.pack("2"), sequence=2)
    await until(lambda: len(rig.builder.timings) == 2)
    assert rig.builder.timings == [b"", b"timings of 1"]
    await life.reaches(TRT)


async def test_an_engine_that_answers_otherwise_is_refused_and_not_built_again(rig: Rig) -> None:
    rig.module.skew = 0.5
    life = await rig.live()
    digest = rig.pack("1")
    await life.serve(digest)
    await until(lambda: bool(life.trials.refused))
    await life.settles()
    assert (life.provider, len(rig.builder.built)) == (CPU, 1)
    assert life.store.records() == []
    assert rig.gpu.alive == {}
    await life.end()
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)
    assert rig.fleet.offered == []


async def test_an_engine_that_is_slower_than_onnx_runtime_is_refused(rig: Rig) -> None:
    rig.module.stalls = lambda: time.sleep(0.05)
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(life.trials.refused))
    assert life.provider == CPU
    assert rig.gpu.alive == {}


@pytest.mark.parametrize("error", [BuildFailed("The builder's process was ended by SIGSEGV."), ModelRefused("No Op.")])
async def test_a_build_that_fails_is_not_tried_again(rig: Rig, error: FoothillError) -> None:
    rig.builder.error = error
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(rig.builder.built))
    await life.settles()
    await life.end()
    rig.builder.error = None
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)


@pytest.mark.parametrize("vitals", [Vitals(16 << 30, 92.0), Vitals(1 << 20, 40.0)], ids=["hot", "full"])
async def test_a_board_that_is_hot_or_full_waits_and_then_builds(rig: Rig, vitals: Vitals) -> None:
    rig.vitals = vitals
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: len(life.naps) >= 4)
    assert (life.provider, rig.builder.built) == (CPU, [])
    assert life.naps[:4] == [60.0, 300.0, 1800.0, 1800.0]
    rig.vitals = COOL
    await life.reaches(TRT)


async def test_an_engine_that_fails_while_it_serves_gives_way_to_onnx_runtime_for_good(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    rig.module.runs_fail = True
    with pytest.raises(FoothillError, match="did not run"):
        await life.bench.ask()
    await life.reaches(CPU)
    await life.bench.ask()
    await life.settles()
    rig.module.runs_fail = False
    assert life.store.records() == []
    await life.end()
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)


async def test_values_that_the_model_cannot_take_do_not_cost_it_its_engine(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    life.bench.ask_nonsense()
    await asyncio.sleep(0)
    await life.settles()
    assert life.provider == TRT


async def test_an_engine_for_what_is_no_longer_served_is_kept_but_not_promoted(rig: Rig) -> None:
    first, second = rig.pack("1"), rig.pack("2")
    rig.builder.waits.clear()
    life = await rig.live()
    await life.serve(first)
    await until(lambda: bool(rig.builder.built))
    await life.serve(second, sequence=2)
    rig.builder.waits.set()
    await life.reaches(TRT)
    assert life.bench.serving() == second
    await life.settles()
    assert life.provider == TRT
    assert life.bench.serving() == second


async def test_an_engine_that_keeps_taking_the_node_down_is_left_alone(rig: Rig) -> None:
    life = await rig.live()
    digest = rig.pack("1")
    await life.serve(digest)
    await life.reaches(TRT)
    (record,) = life.store.records()
    artifact = engine_artifact(manifest_of(rig, digest), "cpu-x86")
    assert artifact is not None
    for _ in range(2):
        life.trials.begin(record.engine, wanted_of(manifest_of(rig, digest), artifact), HERE)
        life.trials = TrialFile(rig.directory / "node" / "trials.json")
    await life.end()
    again = await rig.live()
    await again.settles()
    assert (again.provider, len(rig.builder.built)) == (CPU, 1)
    assert again.trials.refused == {record.engine}


async def test_a_gpu_without_room_is_tried_again_later(rig: Rig) -> None:
    rig.gpu.fails["cuMemAlloc_v2"] = 2
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(life.naps))
    assert life.provider == CPU
    del rig.gpu.fails["cuMemAlloc_v2"]
    await life.reaches(TRT)
    assert len(rig.builder.built) == 1


async def test_an_engine_of_the_very_same_board_is_fetched_instead_of_built(rig: Rig, tmp_path: Path) -> None:
    digest = rig.pack("1")
    rig.fleet.add(*foreign(rig, digest, tmp_path))
    life = await rig.live()
    await life.serve(digest)
    await life.reaches(TRT)
    assert rig.builder.built == []
    assert rig.fleet.offered == []


@pytest.mark.parametrize("wrong", ["board", "bytes", "signature", "away"])
async def test_an_engine_of_the_fleet_that_is_not_right_is_not_taken(rig: Rig, wrong: str, tmp_path: Path) -> None:
    digest = rig.pack("1")
    changes: dict[str, dict[str, object]] = {"board": {"sm": 86}}
    record, data = foreign(rig, digest, tmp_path, **changes.get(wrong, {}))
    rig.fleet.add(
        record, data[:-1] + b" " if wrong == "bytes" else data, NODE_KEY if wrong != "signature" else STRANGER
    )
    rig.fleet.away = wrong == "away"
    life = await rig.live()
    await life.serve(digest)
    await life.reaches(TRT)
    assert len(rig.builder.built) == 1
    assert all(one.machine == HERE for one in life.store.records())


async def test_an_engine_that_was_built_and_tested_here_is_offered_to_the_fleet(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await life.reaches(TRT)
    await life.settles()
    (record,) = life.store.records()
    assert rig.fleet.offered == [record.engine]


async def test_a_bundle_without_something_to_build_from_is_left_as_it_is(rig: Rig) -> None:
    life = await rig.live()
    await life.serve(rig.warehouse.pack("1"))
    await life.settles()
    assert (life.provider, rig.builder.built) == (CPU, [])


async def test_stopping_ends_a_build(rig: Rig) -> None:
    rig.builder.waits.clear()
    life = await rig.live()
    await life.serve(rig.pack("1"))
    await until(lambda: bool(rig.builder.built))
    await life.engines.stop()
    assert not life.engines._work
    assert not list((life.store._root).glob("room.*"))
    await life.bench.ask()
