"""Built TensorRT engines: what one is made of, what it was built for, and what a bundle needs on a machine."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from contracts.boards import BOARDS, Fingerprint
from contracts.errors import FoothillError
from contracts.manifest import Artifact, Manifest, Precision

Kind = Literal["tensorrt", "tensorrt-rtx"]
"""TensorRT, or TensorRT for RTX: another library with nearly the same interface and other rules."""

Hardware = Literal["none", "ampere_plus", "same_compute_capability"]
"""TensorRT's hardware compatibility level: on which other GPUs an engine may run."""

OPTIMAL_BATCH = 8
MAX_ENGINE_BYTES = 8 << 30


class Shapes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input of the optimization profile: every shape from `min` to `max` is taken, `opt` is tuned for."""

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of a machine's fingerprint that engines depend on. `version` is the runtime's, "" where it has none."""

    kind: Kind
    version: str
    os: str
    arch: str
    target: str
    gpu: str | None = None
    sm: int | None = None
    sm_count: int | None = None
    cuda: str | None = None
    jetpack: str | None = None
    power_mode: str | None = None
    dla_cores: int = 0


class EngineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine file was built from and for; whoever built it signs this.

    `onnx`, `engine` and `options` are digests: of the ONNX file, of the engine file, and of everything the builder was
    told. `compute_capabilities` are TensorRT-RTX's targets, () its default. `weight_stripped` needs the ONNX file
    again when it is loaded; `dla_core` is the accelerator it runs on, None the GPU.
    """

    onnx: str
    engine: str
    bytes: int
    options: str
    precision: Precision
    machine: Machine
    profile: tuple[Shapes, ...]
    version_compatible: bool = False
    hardware: Hardware = "none"
    weight_stripped: bool = False
    dla_core: int | None = None
    compute_capabilities: tuple[int, ...] = ()


class TimingCacheRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A builder's remembered timings: where they were measured, and when (unix time)."""

    cache: str
    bytes: int
    machine: Machine
    at_s: float


class Endorsement(msgspec.Struct, frozen=True):
    """The fleet manager's word for an engine (signed by a control key for the use `engine`).

    `offered_by` is the node that built and tested it, or "operator".
    """

    record: EngineRecord
    offered_by: str
    at_s: float


class Wanted(msgspec.Struct, frozen=True):
    """What a bundle needs an engine for: one ONNX file, and every shape that requests may bring."""

    file: str
    onnx: str
    precision: Precision
    profile: tuple[Shapes, ...]

    @property
    def key(self) -> str:
        """The same for the same ONNX file and shapes, in every process."""
        return "sha256:" + hashlib.sha256(msgspec.msgpack.encode((self.onnx, self.profile))).hexdigest()


def machine_of(fingerprint: Fingerprint, kind: Kind = "tensorrt") -> Machine:
    """What engines of `kind` see of a machine. Of the operating system the release does not matter to them."""
    version = fingerprint.tensorrt if kind == "tensorrt" else fingerprint.tensorrt_rtx
    return Machine(
        kind=kind,
        version=version or "",
        os=fingerprint.os.partition(" ")[0],
        arch=fingerprint.arch,
        target=fingerprint.target,
        gpu=fingerprint.gpu,
        sm=fingerprint.sm,
        sm_count=fingerprint.sm_count,
        cuda=fingerprint.cuda,
        jetpack=fingerprint.jetpack,
        power_mode=fingerprint.power_mode,
        dla_cores=fingerprint.dla_cores,
    )


def engine_artifact(manifest: Manifest, target: str) -> Artifact | None:
    """The artifact to build an engine from on `target`, the first of those for TensorRT and, on a GPU, in fp16.

    None where the bundle has none.
    """
    gpu = target in BOARDS and BOARDS[target].family != "cpu"
    suited = (one for one in manifest.artifacts if one.runtime == "tensorrt" or (gpu and one.precision == "fp16"))
    return next((one for one in suited if target in one.targets), None)


def wanted_of(manifest: Manifest, artifact: Artifact) -> Wanted:
    """Raises FoothillError `bad_bundle` for an input whose size is free beyond the batch."""
    return Wanted(artifact.file, manifest.files[artifact.file].sha256, artifact.precision, profile_of(manifest))


def profile_of(manifest: Manifest) -> tuple[Shapes, ...]:
    """One profile over all batches up to the bundle's largest, tuned for OPTIMAL_BATCH or the largest below it."""
    return tuple(_shapes(manifest, spec.name, spec.shape) for spec in manifest.inputs)


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `10.3.0.30-1+cuda12.5` is (10, 3, 0, 30); () for anything else."""
    found: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


def _shapes(manifest: Manifest, name: str, shape: tuple[int, ...]) -> Shapes:
    if any(size < 0 for size in shape[1:]):
        raise FoothillError(
            "bad_bundle",
            f"Bundle {manifest.reference}: input {name} is {list(shape)}; an engine needs every size but the batch "
            f"fixed. Export it with fixed sizes.",
        )
    if shape[:1] != (-1,):
        return Shapes(name, shape, shape, shape)
    batches = (1, min(OPTIMAL_BATCH, manifest.max_batch), manifest.max_batch)
    low, best, high = ((batch, *shape[1:]) for batch in batches)
    return Shapes(name, low, best, high)
