"""What engines did to this machine: which one is being tried, which failed, what cannot be built. Outlives a crash."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.engines import Machine, Wanted
from runtime.links.process.durable import write_file

log = logging.getLogger(__name__)

MOST_REMEMBERED = 256
MOST_CRASHES = 1
"""A power cut may come at any moment; twice at the same one is no chance."""


class Trial(msgspec.Struct, frozen=True):
    """The engine that is being loaded, for which build; `crashes` counts the processes that died of it."""

    engine: str
    build: str
    crashes: int = 0


class Trials(msgspec.Struct, frozen=True):
    """`refused` says of engines why they are not loaded here, `failed` of builds why they are not tried."""

    trial: Trial | None = None
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}


class TrialFile:
    """One file, replaced whole. An engine still on trial when it is opened took the last process with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trials = _read(path)
        if self._trials.trial is not None:
            self._count_crash(self._trials.trial)

    @property
    def refused(self) -> frozenset[str]:
        """Digests of engines."""
        return frozenset(self._trials.refused)

    def begin(self, engine: str, wanted: Wanted, machine: Machine) -> None:
        """Before an engine is loaded: native code may take the whole process with it."""
        before = self._trials.trial
        crashes = before.crashes if before is not None and before.engine == engine else 0
        self._write(msgspec.structs.replace(self._trials, trial=Trial(engine, _build(wanted, machine), crashes)))

    def passed(self) -> None:
        """The engine that was begun is loaded and tested."""
        self._write(msgspec.structs.replace(self._trials, trial=None))

    def refuse(self, engine: str, why: str) -> None:
        """Never loads this engine here again."""
        log.warning("engine %s is not loaded here again: %s", engine, why)
        refused = _with(self._trials.refused, engine, why)
        self._write(msgspec.structs.replace(self._trials, trial=None, refused=refused))

    def fail(self, wanted: Wanted, machine: Machine, why: str) -> None:
        """Does not build this again with this version of the runtime."""
        self._fail(_build(wanted, machine), why)

    def failed(self, wanted: Wanted, machine: Machine) -> bool:
        return _build(wanted, machine) in self._trials.failed

    def _count_crash(self, trial: Trial) -> None:
        crashes = trial.crashes + 1
        if crashes <= MOST_CRASHES:
            counted = msgspec.structs.replace(trial, crashes=crashes)
            self._write(msgspec.structs.replace(self._trials, trial=counted))
            return
        why = f"The node died {crashes} times when it was loaded for the first time."
        self._fail(trial.build, why)
        self.refuse(trial.engine, why)

    def _fail(self, build: str, why: str) -> None:
        self._write(msgspec.structs.replace(self._trials, failed=_with(self._trials.failed, build, why)))

    def _write(self, trials: Trials) -> None:
        self._trials = trials
        write_file(self._path, msgspec.json.encode(trials))


def _read(path: Path) -> Trials:
    """Empty where there is none, or where it cannot be read: then nothing is known to be bad."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Trials)
    except FileNotFoundError:
        return Trials()
    except UNREADABLE as error:
        log.error("%s cannot be read (%s): what failed here before is tried again", path, error)
        return Trials()


def _with(notes: dict[str, str], key: str, why: str) -> dict[str, str]:
    """The newest are remembered."""
    return dict([*((name, text) for name, text in notes.items() if name != key), (key, why)][-MOST_REMEMBERED:])


def _build(wanted: Wanted, machine: Machine) -> str:
    return f"{wanted.key} {machine.kind} {machine.version}"
