"""Manifests, boards and engines as a fleet has them, each a little off: what a decision about engines must stand."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import msgspec

from contracts.boards import Fingerprint
from contracts.engine_choice import Facts
from contracts.engines import (
    EngineRecord,
    Kind,
    Machine,
    TimingCacheRecord,
    Wanted,
    engine_artifact,
    machine_of,
    wanted_of,
)
from contracts.manifest import Artifact, File, Golden, Manifest, Postprocess, TensorSpec, digest_of

_GIB = 1 << 30
X86, ARM = "x86_64", "aarch64"


def _board(target: str, arch: str, gpu: str, sm: int, sms: int, trt: str, cuda: str, **more: Any) -> Fingerprint:
    return Fingerprint(
        target=target,
        arch=arch,
        os=more.pop("os", "linux 6.1.0"),
        cores=8,
        memory_bytes=8 * _GIB,
        provider="CUDAExecutionProvider",
        runtime="onnxruntime 1.23.2",
        sm=sm,
        sm_count=sms,
        gpu=gpu,
        tensorrt=trt,
        cuda=cuda,
        **more,
    )


def _jetson(module: str, sms: int, l4t: str, trt: str, cuda: str, mode: str, dla: int = 0) -> Fingerprint:
    jetson = {"jetpack": f"L4T {l4t}", "power_mode": mode, "dla_cores": dla}
    return _board(f"jetson-{module}", ARM, "Orin", 87, sms, trt, cuda, os="linux 5.15.148-tegra", **jetson)


BOARDS = (
    _jetson("orin-nano", 8, "36.4.3", "10.3.0.30", "12.6", "15W"),
    _jetson("orin-nano", 8, "36.4.4", "10.3.0.30", "12.6", "MAXN_SUPER"),
    _jetson("orin-nano", 8, "39.2.0", "10.16.0.72", "13.2", "15W"),
    _jetson("orin-nx", 8, "36.4.3", "10.3.0.30", "12.6", "25W", dla=2),
    _jetson("orin-nx", 8, "36.4.3", "10.3.0.30", "12.6", "10W", dla=1),
    _jetson("agx-orin", 16, "36.4.3", "10.3.0.30", "12.6", "MAXN", dla=2),
    _jetson("agx-orin", 6, "36.4.3", "10.3.0.30", "12.6", "15W", dla=2),
    _board("jetson-thor", ARM, "Thor", 110, 20, "10.13.0.35", "13.0", jetpack="L4T 38.2.0", power_mode="MAXN"),
    _board("rtx-sm86", X86, "NVIDIA GeForce RTX 3060", 86, 28, "10.16.0.72", "12.9", tensorrt_rtx="1.7.1.116"),
    _board("rtx-sm86", X86, "NVIDIA GeForce RTX 3090", 86, 82, "10.16.0.72", "12.9", tensorrt_rtx="1.7.1.116"),
    _board("rtx-sm89", X86, "NVIDIA GeForce RTX 4090", 89, 128, "10.11.0.33", "12.9", tensorrt_rtx="1.6.0.100"),
    _board("rtx-sm89", X86, "NVIDIA GeForce RTX 4090", 89, 128, "11.4.1.20", "13.2", os="windows 11"),
    _board("rtx-sm120", X86, "NVIDIA GeForce RTX 5090", 120, 170, "10.16.0.72", "13.2", tensorrt_rtx="1.7.1.116"),
    _board("cpu-x86", X86, "Tesla T4", 75, 40, "10.16.0.72", "12.9", tensorrt_rtx="1.7.1.116"),
    _board("cpu-arm", ARM, "NVIDIA GH200 480GB", 90, 132, "10.16.0.72", "12.9"),
)
TARGETS = tuple(sorted({board.target for board in BOARDS}))
_SHARED = ("os", "arch", "target", "gpu", "sm", "sm_count", "cuda", "jetpack", "power_mode", "dla_cores")
_VERSIONS = {"tensorrt": ("10.3.0.30", "10.3.0.26", "10.16.0.72", "11.4.1.20", ""), "tensorrt_rtx": ("1.7.1.116", "")}


class Pair(NamedTuple):
    """One board, one bundle, and the engines and timings that happen to be at hand."""

    manifest: Manifest
    wanted: Wanted
    machine: Machine
    records: tuple[EngineRecord, ...]
    caches: tuple[TimingCacheRecord, ...]
    facts: Facts


def pairs(seed: int, count: int) -> Iterator[Pair]:
    rng = Random(seed)
    for _ in range(count):
        yield _pair(rng)


def _pair(rng: Random) -> Pair:
    kind: Kind = rng.choice(("tensorrt", "tensorrt", "tensorrt", "tensorrt-rtx"))
    board = _mutated_board(rng, rng.choice(BOARDS), rng.choice((0, 0, 0, 1)))
    manifest = _manifest(rng)
    wanted = wanted_by(manifest)
    machine = machine_of(board, kind)
    records = tuple(_engine(rng, manifest, board, kind) for _ in range(rng.randrange(6)))
    caches = tuple(_cache(rng, board, kind) for _ in range(rng.randrange(3)))
    return Pair(manifest, wanted, machine, records, caches, _facts(rng, records, wanted))


def _mutated_board(rng: Random, board: Fingerprint, changes: int) -> Fingerprint:
    for _ in range(changes):
        field = rng.choice((*_SHARED, *_VERSIONS))
        values: tuple[Any, ...] = _VERSIONS.get(field) or tuple(getattr(other, field) for other in BOARDS)
        if rng.random() < 0.1 and field not in ("os", "arch", "target", "dla_cores"):
            values = (None,)
        board = msgspec.structs.replace(board, **{field: rng.choice(values)})
    return board


def _manifest(rng: Random) -> Manifest:
    """One of a few networks, in one of a few sizes and batches."""
    return manifest(rng.choice((b"a", b"a", b"b")), rng.choice((8, 8, 16)), rng.choice((1, 4, 32)), rng.random() < 0.8)


def manifest(network: bytes, size: int, max_batch: int, free_batch: bool = True) -> Manifest:
    file = "trt.s8.onnx"
    contents = {file: network, "in.npy": b"in", "out.npy": b"out"}
    batch = -1 if free_batch else 1
    return Manifest(
        name="net",
        version="1",
        model="net",
        task="classification",
        tier="edge",
        files={name: File(digest_of(data), len(data)) for name, data in contents.items()},
        artifacts=(Artifact(file, "int8", "tensorrt", TARGETS),),
        inputs=(TensorSpec("image", "FP32", (batch, 3, size, size)),),
        outputs=(TensorSpec("logits", "FP32", (batch, 10)),),
        postprocess=Postprocess("logits", "logits"),
        golden=Golden({"image": "in.npy"}, {file: {"logits": "out.npy"}}, 1e-3, 1e-3),
        max_batch=max_batch,
    )


def wanted_by(bundle: Manifest) -> Wanted:
    artifact = engine_artifact(bundle, TARGETS[0])
    assert artifact is not None
    return wanted_of(bundle, artifact)


def _engine(rng: Random, bundle: Manifest, board: Fingerprint, kind: Kind) -> EngineRecord:
    """Mostly built for nearly this bundle on nearly this board; now and then on another."""
    near = rng.random() < 0.8
    there = _mutated_board(rng, board if near else rng.choice(BOARDS), rng.choice((0, 1, 1, 2)) if near else 0)
    there_kind: Kind = kind if rng.random() < 0.95 else rng.choice(("tensorrt", "tensorrt-rtx"))
    wanted = wanted_by(bundle if rng.random() < 0.85 else _manifest(rng))
    capabilities = rng.choice(((), (), (86,), (89, 120), (75,))) if there_kind == "tensorrt-rtx" else ()
    return EngineRecord(
        onnx=wanted.onnx,
        engine=digest_of(rng.randbytes(8)),
        bytes=1000,
        options=digest_of(b"options"),
        precision=wanted.precision,
        machine=machine_of(there, there_kind),
        profile=wanted.profile,
        version_compatible=rng.random() < 0.3,
        hardware=rng.choice(("none", "none", "none", "ampere_plus", "same_compute_capability")),
        weight_stripped=rng.random() < 0.1,
        dla_core=rng.choice((None, None, None, None, 0, 1)),
        compute_capabilities=capabilities,
    )


def _cache(rng: Random, board: Fingerprint, kind: Kind) -> TimingCacheRecord:
    there = _mutated_board(rng, board, rng.choice((0, 1, 2)))
    return TimingCacheRecord(digest_of(rng.randbytes(8)), 100, machine_of(there, kind), rng.uniform(0, 1e9))


def _facts(rng: Random, records: tuple[EngineRecord, ...], wanted: Wanted) -> Facts:
    return Facts(
        free_bytes=rng.choice((8, 8, 8, 1)) * _GIB,
        needed_bytes=2 * _GIB,
        temperature_c=rng.choice((None, 45.0, 60.0, 95.0)),
        no_builder=rng.choice(("", "", "", "engines = off")),
        refused=frozenset(one.engine for one in records if rng.random() < 0.05),
        failed_builds=frozenset({wanted.key} if rng.random() < 0.05 else ()),
    )
