"""What engines did to this machine: which one is being tried, which failed, what cannot be built. Outlives a crash."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.engines import Machine, Wanted
from runtime.links.durable import write_file

log = logging.getLogger(__name__)

MOST_REMEMBERED = 256


class Trials(msgspec.Struct, frozen=True):
    """`trial` is the engine that is being loaded for the first time ("" for none); `refused` says of engines why they
    are not loaded here, `failed` of wanted engines why they cannot be built."""

    trial: str = ""
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}


class TrialFile:
    """One file, replaced whole. An engine still on trial when it is opened took the last process with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trials = _read(path)
        if self._trials.trial:
            self.refuse(self._trials.trial, "The node died when it was loaded for the first time.")

    @property
    def refused(self) -> frozenset[str]:
        """Digests of engines."""
        return frozenset(self._trials.refused)

    def begin(self, engine: str) -> None:
        """Before an engine is loaded: native code may take the whole process with it."""
        self._write(msgspec.structs.replace(self._trials, trial=engine))

    def passed(self) -> None:
        """The engine that was begun is loaded and tested."""
        self._write(msgspec.structs.replace(self._trials, trial=""))

    def refuse(self, engine: str, why: str) -> None:
        """Never loads this engine here again."""
        log.warning("engine %s is not loaded here again: %s", engine, why)
        self._write(msgspec.structs.replace(self._trials, trial="", refused=_with(self._trials.refused, engine, why)))

    def fail(self, wanted: Wanted, machine: Machine, why: str) -> None:
        """Does not build this again with this version of the runtime."""
        failed = _with(self._trials.failed, _build(wanted, machine), why)
        self._write(msgspec.structs.replace(self._trials, failed=failed))

    def failed(self, wanted: Wanted, machine: Machine) -> bool:
        return _build(wanted, machine) in self._trials.failed

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
