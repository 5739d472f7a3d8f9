"""A node with a GPU that is none: real bundles, store, updater and engine code; the builder and CUDA are played."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from contracts.engines import EngineRecord, Machine, engine_artifact, wanted_of
from contracts.errors import FoothillError
from contracts.manifest import FILE, Artifact, File, Golden, Manifest, digest_of, encode
from contracts.messages import Signed
from edge_node.engine_source import EngineSource, NoShared, Vitals
from edge_node.engines import Engines
from edge_node.room import Room
from runtime.links.bundles.engine_registry import SharedEngine
from runtime.links.trust import signatures
from runtime.serving.engines.cuda import Cuda
from runtime.serving.engines.store import EngineStore, OpenRecord
from runtime.serving.engines.tensorrt_build import BuiltFile
from runtime.serving.engines.tensorrt_builder import record_of
from runtime.serving.engines.tensorrt_engine import TensorRtEngine
from runtime.serving.engines.tensorrt_module import Installed
from runtime.serving.engines.tensorrt_options import BuildOptions
from runtime.serving.engines.trials import TrialFile
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

    async def find(self, onnx: str) -> list[SharedEngine]:
        if self.away:
            raise FoothillError("unavailable", "The fleet is away.")
        found = [
            SharedEngine(signed, msgspec.msgpack.decode(signed.payload, type=EngineRecord))
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
        self.bench = Bench(directory, rig.warehouse, room=Room(lambda: rig.free_bytes, 0))
        self.trials = TrialFile(directory / "trials.json")
        self.store = EngineStore(directory / "engines", cap_bytes=1 << 20, open_record=rig.open_record)
        self.naps: list[float] = []
        self.source = EngineSource(
            machine=HERE,
            store=self.store,
            trials=self.trials,
            shared=rig.fleet,
            build=rig.builder.build,
            sign=lambda record: signatures.sign(record, rig.private),
            vitals=lambda: rig.vitals,
        )
        self.engines = Engines(
            source=self.source,
            open_engine=rig.open_engine,
            bundles=self.bench.store,
            host=self.bench.host,
            updater=self.bench.updater,
            target="cpu-x86",
            room=Room(lambda: rig.free_bytes, 0),
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
        self.fleet: Any = Fleet()
        self.private = NODE_KEY
        self.open_record: OpenRecord = open_record
        self.gpu = FakeLibcuda()
        self.module = FakeTrtRuntime()
        self.vitals = COOL
        self.free_bytes = 0
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
