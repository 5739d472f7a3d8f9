"""An artifact's graph as ONNX Runtime has optimized it for this processor, its weights in a file beside it: the next
start maps them into memory, and does not optimize again."""

from __future__ import annotations

import logging
import os
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
from contracts.errors import FoothillError
from runtime.links.process.memory import give_back
from runtime.serving.engines.store import digest_of_file

log = logging.getLogger(__name__)

GRAPH, WEIGHTS, RECORD = "graph.onnx", "weights.bin", "record.json"
PREFIX = "graph-"
WORTH_BYTES = 1 << 20
"""Smaller artifacts open in a few milliseconds anyway."""
MOST_STRIKES = 2

_SPARE = 3
"""So many times the artifact must have room on the disk: its graph, and the next bundle of its size."""
_TRIAL, _STRIKES = "trial", "strikes"
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

    Nothing is synced to the disk: a graph that a power cut has torn is not what its record says, and is made anew.
    Whatever goes wrong with one, the artifact is opened; after MOST_STRIKES in a row no other is made.
    """

    def __init__(self, place: Path, artifact: Path, *, reserve_bytes: int = 0) -> None:
        self._place = place / _made_for()
        self._artifact = artifact
        self._reserve_bytes = reserve_bytes
        self._on_trial = False

    def ready(self, write: Write) -> Path | None:
        """The graph to open, made by `write` where there is none yet. None: open the artifact.

        What was handed out is on trial until it has `survived`, is refused, or is not used any more: should the process
        end before, it is suspected of that. Raises nothing.
        """
        try:
            self._place.mkdir(mode=0o700, exist_ok=True)
            if not self._begin_trial():
                return None
            if self._intact() or self._made(write):
                return self._place / GRAPH
            self.end_trial()
        except (OSError, FoothillError) as error:
            self.refuse(f"it cannot be made: {error}")
        return None

    def survived(self) -> None:
        """It opens and answers right, and the process lives."""
        with suppress(OSError):
            (self._place / _STRIKES).unlink(missing_ok=True)
        self.end_trial()

    def refuse(self, why: str) -> None:
        """It does not open here, or answers wrong."""
        log.warning("%s: its optimized graph does not do: %s. The artifact is opened instead.", self._artifact, why)
        self._strike()
        self.end_trial()

    def _begin_trial(self) -> bool:
        """False where the graph failed too often, is being opened elsewhere, or an earlier process died on it."""
        if self._strikes() >= MOST_STRIKES:
            return False
        trial = self._place / _TRIAL
        try:
            trial.symlink_to(_THIS_LIFE)  # made whole or not at all, and takes no room
        except FileExistsError:
            if os.readlink(trial) != _THIS_LIFE:
                log.warning("%s: the process ended while it opened the optimized graph, which goes", self._artifact)
                self._strike()
                trial.unlink(missing_ok=True)
            return False
        self._on_trial = True
        return True

    def end_trial(self) -> None:
        """Without a verdict, where there was none yet."""
        if self._on_trial:
            self._on_trial = False
            with suppress(OSError):
                (self._place / _TRIAL).unlink(missing_ok=True)

    def _strikes(self) -> int:
        with suppress(FileNotFoundError):
            return (self._place / _STRIKES).stat().st_size
        return 0

    def _strike(self) -> None:
        with suppress(OSError):
            self._drop()
            with (self._place / _STRIKES).open("ab") as strikes:
                strikes.write(b"x")

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
            log.info("%s: the disk has no room to spare for its optimized graph", self._artifact)
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
        for other in self._place.parent.glob(PREFIX + "*"):
            if other != self._place:
                shutil.rmtree(other, ignore_errors=True)


def _made_for() -> str:
    """A name for this processor and this ONNX Runtime: with another one, operators are chosen otherwise."""
    told = "\n".join((ort.__version__, platform.machine(), *_processor()))
    return PREFIX + sha256(told.encode()).hexdigest()[:16]


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return [platform.processor()]
    return sorted({line for line in lines if line.partition(":")[0].strip().lower() in _TELLING})
