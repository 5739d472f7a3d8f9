"""TensorRT engines on a build machine: from a packed bundle to an engine for this machine's kind of GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from contracts.boards import BOARDS
from contracts.engines import EngineRecord, Hardware, Kind, Machine, Wanted, engine_artifact, machine_of, wanted_of
from contracts.manifest import Artifact, digest_of
from model_compiler.errors import CompileError
from model_compiler.pack import Packed, read
from runtime.serving.engines.fingerprint import detect
from runtime.serving.engines.tensorrt_build import ANSWER, BOUNDS, REQUEST, Bounds, BuiltFile, build_apart
from runtime.serving.engines.tensorrt_options import WORKSPACE_BYTES, BuildOptions

RECORD_FILE = "record.json"


class EngineTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to build, and how. `target` is a board of the table; "" is the one this machine is."""

    kind: Kind = "tensorrt"
    target: str = ""
    workspace_bytes: int = WORKSPACE_BYTES
    hardware: Hardware = "none"
    version_compatible: bool = False
    weight_stripped: bool = False
    dla_core: int | None = None
    compute_capabilities: tuple[int, ...] = ()


def build_for(
    bundle: Path,
    target: EngineTarget,
    out: Path,
    *,
    timings: Path | None = None,
    machine: Machine | None = None,
    bounds: Bounds = BOUNDS,
) -> BuiltFile:
    """Builds an engine for a packed bundle into `out` (engine, record.json, timings, log.txt), in a child process.

    Blocks. An engine runs on the kind of machine that builds it: `target` only chooses the artifact. `timings` is the
    file of an earlier build here. `machine` None looks at this machine.

    Raises CompileError for a bundle without an artifact to build from, FoothillError as the builder does.
    """
    packed = read(bundle)
    if target.target:
        artifact_for(packed, target.target)  # before the machine is looked at
    here = machine or machine_of(detect(target=target.target), target.kind)
    artifact = artifact_for(packed, target.target or here.target)
    out.mkdir(parents=True, exist_ok=True)
    options = options_of(target, wanted_of(packed.manifest, artifact))
    work = build_apart(packed.file(artifact.file), options, here, out, timings=timings, bounds=bounds)
    built = asyncio.run(work)
    for told in (REQUEST, ANSWER):  # what the child process was asked, and said
        (out / told).unlink(missing_ok=True)
    (out / RECORD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(built.record), indent=2) + b"\n")
    return built


def engine_target(asked: Mapping[str, object]) -> EngineTarget:
    """From options as a user gives them, by the names of the fields. Raises CompileError that names the wrong one."""
    try:
        return msgspec.convert(asked, EngineTarget)
    except msgspec.ValidationError as error:
        raise CompileError(f"The engine cannot be as asked: {error}. Use a value that --help names.") from error


def artifact_for(packed: Packed, target: str) -> Artifact:
    """The artifact that engines for `target` are built from."""
    if target not in BOARDS:
        raise CompileError(f"Target {target!r} is not in the board table: use one of {', '.join(BOARDS)}.")
    artifact = engine_artifact(packed.manifest, target)
    if artifact is None:
        known = [board for board in BOARDS if engine_artifact(packed.manifest, board) is not None]
        raise CompileError(
            f"{packed.manifest.reference} has no artifact for TensorRT or in fp16 for {target}; it has some for "
            f"{', '.join(known) or 'no target'}. Compile it with this target."
        )
    return artifact


def options_of(target: EngineTarget, wanted: Wanted) -> BuildOptions:
    return BuildOptions(
        precision=wanted.precision,
        profile=wanted.profile,
        kind=target.kind,
        workspace_bytes=target.workspace_bytes,
        hardware=target.hardware,
        version_compatible=target.version_compatible,
        weight_stripped=target.weight_stripped,
        dla_core=target.dla_core,
        compute_capabilities=target.compute_capabilities,
    )


def read_record(out: Path) -> EngineRecord:
    """What `build_for` wrote beside an engine. Raises CompileError when the engine is another."""
    record = msgspec.json.decode((out / RECORD_FILE).read_bytes(), type=EngineRecord)
    if digest_of((out / "engine").read_bytes()) != record.engine:
        raise CompileError(f"{out / 'engine'} is not the engine of {RECORD_FILE} beside it. Build it again.")
    return record
