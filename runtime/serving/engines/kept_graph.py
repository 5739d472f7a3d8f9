"""An artifact's graph as ONNX Runtime has optimized it for this processor, its weights in a file beside it: the next
start maps them into memory, and neither optimizes nor reads them."""

from __future__ import annotations

import logging
import platform
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec
import onnxruntime as ort

from contracts.decoding import UNREADABLE
from runtime.links.process.memory import give_back
from runtime.serving.engines.store import digest_of_file

log = logging.getLogger(__name__)

GRAPH, WEIGHTS, RECORD = "graph.onnx", "weights.bin", "record.json"
WORTH_BYTES = 1 << 20
"""Smaller artifacts open in a few milliseconds anyway."""

_SPARE = 3
"""So many times the artifact must have room on the disk: its graph, and the next bundle of its size."""
_TRIAL, _REFUSED = "trial", "refused"
_THIS_LIFE = secrets.token_hex(8)
_TELLING = ("vendor_id", "cpu family", "model", "stepping", "flags", "cpu implementer", "cpu part", "features")

Write = Callable[[Path], None]
"""Opens the artifact and leaves GRAPH and WEIGHTS in a directory. Raises FoothillError."""


class _Record(msgspec.Struct, frozen=True):
    """What the two files were when they were made; `weights` is "" where the graph holds them all."""

    graph: str
    weights: str


class KeptGraph:
    """The kept graph of one artifact, in a directory of its own that may be removed at any time. Blocks.

    Nothing is synced to the disk: a graph that a power cut has torn is not what its record says, and is made anew. The
    process that dies on a graph opens the artifact itself the next time.
    """

    def __init__(self, place: Path, artifact: Path, *, reserve_bytes: int = 0) -> None:
        self._place = place / _made_for()
        self._artifact = artifact
        self._reserve_bytes = reserve_bytes

    def ready(self, write: Write) -> Path | None:
        """The graph to open, made by `write` where there is none yet. None: open the artifact.

        What was handed out is on trial until it has `survived`, or is refused. Raises FoothillError as `write` does.
        """
        try:
            if not self._begin_trial():
                return None
            if self._intact() or self._made(write):
                return self._place / GRAPH
            self.survived()
        except OSError as error:
            log.warning("%s: no optimized graph is kept: %s", self._artifact.name, error)
        return None

    def survived(self) -> None:
        """The process has: it need not be suspected at the next start."""
        with suppress(OSError):
            (self._place / _TRIAL).unlink()

    def refuse(self, why: str) -> None:
        """It does not open here, or answers wrong: it is not made again."""
        log.warning("%s is opened itself from now on, its kept graph does not do: %s", self._artifact.name, why)
        with suppress(OSError):
            self._drop()
            (self._place / _REFUSED).touch()
        self.survived()

    def _begin_trial(self) -> bool:
        """False where the graph is refused, is being opened elsewhere, or an earlier process did not survive it."""
        self._place.mkdir(mode=0o700, exist_ok=True)
        trial = self._place / _TRIAL
        if (self._place / _REFUSED).exists():
            return False
        try:
            with trial.open("x") as file:
                file.write(_THIS_LIFE)
        except FileExistsError:
            if trial.read_text() != _THIS_LIFE:
                log.warning("%s: the process ended while it opened the kept graph, which is dropped", self._artifact)
                self._drop()
                trial.unlink(missing_ok=True)
            return False
        return True

    def _intact(self) -> bool:
        try:
            record = msgspec.json.decode((self._place / RECORD).read_bytes(), type=_Record)
            return record == self._found()
        except (OSError, *UNREADABLE):
            return False

    def _made(self, write: Write) -> bool:
        """False where the disk has no room for it."""
        self._drop()
        self._drop_those_of_other_machines()
        if shutil.disk_usage(self._place).free < self._reserve_bytes + _SPARE * self._artifact.stat().st_size:
            log.info("%s: the disk has no room to spare for its optimized graph", self._artifact.name)
            return False
        with tempfile.TemporaryDirectory(prefix="making-", dir=self._place) as making:
            write(Path(making))
            give_back()
            for name in (WEIGHTS, GRAPH):
                if (made := Path(making, name)).exists():
                    made.replace(self._place / name)
        (self._place / RECORD).write_bytes(msgspec.json.encode(self._found()))
        return True

    def _found(self) -> _Record:
        weights = self._place / WEIGHTS
        return _Record(digest_of_file(self._place / GRAPH), digest_of_file(weights) if weights.exists() else "")

    def _drop(self) -> None:
        for name in (RECORD, GRAPH, WEIGHTS):
            (self._place / name).unlink(missing_ok=True)
        for left in self._place.glob("making-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _drop_those_of_other_machines(self) -> None:
        for other in self._place.parent.iterdir():
            if other != self._place and other.name.startswith(_PREFIX):
                shutil.rmtree(other, ignore_errors=True)


_PREFIX = "graph-"


def _made_for() -> str:
    """A name for this processor and this ONNX Runtime: with another one, weights are laid out otherwise."""
    told = "\n".join((ort.__version__, platform.machine(), *_processor()))
    return _PREFIX + sha256(told.encode()).hexdigest()[:16]


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return [platform.processor()]
    return sorted({line for line in lines if line.partition(":")[0].strip().lower() in _TELLING})
