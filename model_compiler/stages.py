"""Stages that need not run twice: what each made is kept under the digest of what it was made from."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import msgspec

from contracts.decoding import UNREADABLE
from model_compiler.errors import CompileError
from model_compiler.exclusive import alone
from model_compiler.progress import Advance, Progress, stage_of

_RECORD = "stage.json"
_TOOLS = ("foothill", "torch", "onnx", "onnxruntime", "onnxslim", "torch-pruning", "torchao", "numpy", "scikit-learn")
FORM = 1
"""Raised when a stage of the same inputs would come out otherwise than before."""

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

Produce = Callable[[Path, Advance], None]
"""Writes a stage's files into an empty directory, and tells how far it is."""


class Ran(msgspec.Struct, frozen=True):
    """One stage of one compilation: `took_s` by the clock and `cpu_s` of this process when it ran, now or, where
    `reused`, before."""

    bundle: str
    stage: str
    took_s: float
    reused: bool
    cpu_s: float = 0.0


class Record(msgspec.Struct, frozen=True):
    """Beside a stage's files: what they were made from, with what, and their SHA-256."""

    stage: str
    inputs: dict[str, Any]
    tools: dict[str, str]
    files: dict[str, str]
    took_s: float
    cpu_s: float = 0.0


class Stages:
    """The finished stages in `directory`, which compilations may share, at the same time too.

    A stage that was cut short leaves nothing that counts; one whose files were changed afterwards runs again.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.directory = directory
        self._clock = clock
        self.tools = {name: _version(name) for name in _TOOLS}
        self.ran: list[Ran] = []

    def run(self, bundle: str, stage: str, inputs: Mapping[str, Any], produce: Produce, progress: Progress) -> Path:
        """The directory of the stage's files, made by `produce` unless it was made from equal `inputs` before.

        `inputs`: names to digests, numbers, texts, and lists or dicts of these. Where another process makes the same
        it is waited for. Raises CompileError where the disk does not take the files.
        """
        kept = self.directory / f"{stage.replace(' ', '-')}-{_key(stage, inputs, self.tools)}"
        advance = stage_of(progress, bundle, stage)
        record = _finished(kept)
        reused = record is not None
        if record is None:
            try:
                with alone(kept.with_name(f"{kept.name}.lock")):
                    record = _finished(kept)
                    reused = record is not None
                    record = record or self._produce(kept, stage, inputs, produce, advance)
            except OSError as error:
                raise self._failed(stage, error) from error
        advance(1.0)
        self.ran.append(Ran(bundle, stage, record.took_s, reused, record.cpu_s))
        return kept

    def _produce(self, kept: Path, stage: str, inputs: Mapping[str, Any], produce: Produce, advance: Advance) -> Record:
        """Into a directory of its own, which takes the stage's name when everything is in it."""
        work = kept.with_name(f"{kept.name}.part")
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        work.mkdir()
        try:
            start, cpu = self._clock(), time.process_time()
            produce(work, advance)
            took_s, cpu_s = round(self._clock() - start, 3), round(time.process_time() - cpu, 3)
            record = Record(stage, dict(inputs), self.tools, _digests(work), took_s, cpu_s)
            (work / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record, order="sorted")))
            shutil.rmtree(kept, ignore_errors=True)
            work.replace(kept)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return record

    def _failed(self, stage: str, error: OSError) -> CompileError:
        told = error.strerror or error
        if error.errno in _FULL or Path(error.filename or "").is_relative_to(self.directory):
            return CompileError(
                f"{self.directory} does not take what stage {stage!r} makes ({told}). Free space there, or in "
                f"{gettempdir()}, or name another directory with --stages. Finished stages are kept."
            )
        return CompileError(f"stage {stage!r} stopped at {error.filename or 'a file'}: {told}. Mend it and try again.")


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file. Raises CompileError when it cannot be read."""
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
    except OSError as error:
        raise CompileError(f"{path} cannot be read ({error.strerror}). Give the path of an existing file.") from error
    return sha256.hexdigest()


def _key(stage: str, inputs: Mapping[str, Any], tools: Mapping[str, str]) -> str:
    told = msgspec.json.encode([FORM, stage, dict(inputs), dict(tools)], order="sorted")
    return hashlib.sha256(told).hexdigest()[:20]


def _finished(kept: Path) -> Record | None:
    try:
        record = msgspec.json.decode((kept / _RECORD).read_bytes(), type=Record)
        return record if _digests(kept) == record.files else None
    except (OSError, *UNREADABLE):
        return None


def _digests(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != _RECORD)
    return {str(path.relative_to(directory)): file_digest(path) for path in files}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
