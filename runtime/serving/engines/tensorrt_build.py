"""A build in a process of its own: should the builder crash or eat the memory, the node goes on serving.

The parent runs `python -m runtime.serving.engines.tensorrt_build DIRECTORY`; request, answer, engine, timings and log
are files in that directory, which the caller provides and clears.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.engines import EngineRecord, Machine
from contracts.errors import FoothillError
from runtime.serving.engines.tensorrt_builder import build
from runtime.serving.engines.tensorrt_errors import BuildFailed
from runtime.serving.engines.tensorrt_module import load
from runtime.serving.engines.tensorrt_options import BuildOptions

log = logging.getLogger(__name__)

REQUEST, ANSWER, ENGINE, TIMINGS, LOG = "request.json", "answer.json", "engine", "timings", "log.txt"
_LOOK_EVERY_S = 0.2
_TOLD_LINES = 3
_NICE = 10


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`timings` is the file to start from, "" for none."""

    onnx: str
    options: BuildOptions
    machine: Machine
    timings: str = ""


class Done(msgspec.Struct, frozen=True, tag=True):
    record: EngineRecord
    took_s: float
    notes: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True, tag=True):
    code: str
    message: str


class BuiltFile(msgspec.Struct, frozen=True):
    """An engine as a file. `timings` is None where the runtime keeps none."""

    engine: Path
    record: EngineRecord
    timings: Path | None
    took_s: float
    notes: tuple[str, ...]


class Bounds(msgspec.Struct, frozen=True):
    """What a build may take: resident memory in bytes, and time in seconds."""

    memory_bytes: int = 6 << 30
    seconds: float = 3600.0


BOUNDS = Bounds()


async def build_apart(
    onnx: Path,
    options: BuildOptions,
    machine: Machine,
    directory: Path,
    *,
    timings: Path | None = None,
    bounds: Bounds = BOUNDS,
    environment: Mapping[str, str] | None = None,
) -> BuiltFile:
    """Builds in a child process that writes into `directory`; cancelling kills it.

    Raises what `tensorrt_builder.build` raises, and BuildFailed when the child died or broke its bounds.
    """
    _ask(directory, onnx, options, machine, timings)
    with (directory / LOG).open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", __spec__.name, "."),
            stdout=output,
            stderr=output,
            cwd=directory,
            # Python takes modules from the working directory else, and this one holds what was just built.
            env={**(os.environ if environment is None else environment), "PYTHONSAFEPATH": "1"},
        )
    broken = await _watched(child, bounds)
    return _read_answer(directory, child.returncode or 0, broken)


def _ask(directory: Path, onnx: Path, options: BuildOptions, machine: Machine, timings: Path | None) -> None:
    """The child stands in another directory, so that its paths are absolute."""
    request = Request(str(onnx.resolve()), options, machine, str(timings.resolve()) if timings is not None else "")
    (directory / REQUEST).write_bytes(msgspec.json.encode(request))
    (directory / ANSWER).unlink(missing_ok=True)


async def _watched(child: asyncio.subprocess.Process, bounds: Bounds) -> str:
    """Waits for the child; returns which bound it broke, "" for none. It never outlives this call."""
    give_up_at = time.monotonic() + bounds.seconds
    ended = asyncio.ensure_future(child.wait())
    try:
        while not ended.done():
            if time.monotonic() > give_up_at:
                return f"it took more than {bounds.seconds:.0f} s"
            if (resident := resident_bytes(child.pid)) > bounds.memory_bytes:
                return f"it took {resident >> 20} MiB of memory, and {bounds.memory_bytes >> 20} MiB are allowed"
            await asyncio.wait({ended}, timeout=_LOOK_EVERY_S)
        return ""
    finally:
        if not ended.done():
            with suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(ended)


def resident_bytes(pid: int) -> int:
    """Memory of a process; 0 for one that has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _read_answer(directory: Path, status: int, broken: str) -> BuiltFile:
    if broken:
        raise BuildFailed(f"The build was ended: {broken}. Set a smaller workspace, or build on a larger machine.")
    try:
        answer = msgspec.json.decode((directory / ANSWER).read_bytes(), type=Done | Refused)
    except (OSError, *UNREADABLE) as error:
        raise BuildFailed(f"The builder's process {_death(status)}. It said: {_last_words(directory)}") from error
    if isinstance(answer, Refused):
        raise FoothillError(answer.code, answer.message)
    timings = directory / TIMINGS
    return BuiltFile(
        directory / ENGINE, answer.record, timings if timings.exists() else None, answer.took_s, answer.notes
    )


def _death(status: int) -> str:
    if status >= 0:
        return f"ended with status {status} and no answer"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _last_words(directory: Path) -> str:
    lines = (directory / LOG).read_text(errors="replace").splitlines()
    return " | ".join(line.strip()[:300] for line in lines[-_TOLD_LINES:]) or "nothing"


def main(directory: Path) -> None:
    """The child: reads the request, builds, answers."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _step_back()
    request = msgspec.json.decode((directory / REQUEST).read_bytes(), type=Request)
    answer: Done | Refused
    try:
        answer = _build(request, directory)
    except FoothillError as error:
        answer = Refused(error.code, error.message)
    (directory / ANSWER).write_bytes(msgspec.json.encode(answer))


def _build(request: Request, directory: Path) -> Done:
    (directory / TIMINGS).unlink(missing_ok=True)
    built = build(
        Path(request.onnx),
        request.options,
        request.machine,
        installed=load(request.options.kind),
        timings=Path(request.timings).read_bytes() if request.timings else b"",
    )
    (directory / ENGINE).write_bytes(built.engine)
    if built.timings:
        (directory / TIMINGS).write_bytes(built.timings)
    return Done(built.record, built.took_s, built.notes)


def _step_back() -> None:
    """Serving comes first: for the processor, and when the kernel is out of memory and looks for whom to end."""
    with suppress(OSError):
        os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
