"""What a node serves, had served and is trying, kept in one file that survives a kill at any moment."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Literal

import msgspec

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.manifest import digest_of
from runtime.links.process.disk import REAL_DISK, Disk
from runtime.links.process.durable import make_directories, write_file

log = logging.getLogger(__name__)

FILE = "slots.json"
BACKUP_FILE = "slots.backup.json"


class Trial(msgspec.Struct, frozen=True):
    """A bundle that is being loaded or is on probation, as desired document `sequence` asked.

    `crashes` counts the starts of a node that had died with this trial open.
    """

    digest: str
    sequence: int
    crashes: int = 0


class Rejected(msgspec.Struct, frozen=True):
    """The last bundle that this node would not serve, why, and the desired document that had asked for it."""

    digest: str
    phase: Literal["failed", "reverted"]
    error: str
    sequence: int


class Slot(msgspec.Struct, frozen=True):
    """One logical model on a node, by bundle digests; "" is none. `proven`: the current one has passed probation.

    `unloaded` is the bundle that an operator took off.
    """

    current: str = ""
    previous: str = ""
    proven: bool = True
    trial: Trial | None = None
    rejected: Rejected | None = None
    unloaded: str = ""

    @property
    def off(self) -> bool:
        """Whether nothing is to answer, as an operator wants it."""
        return self.current != "" and self.current == self.unloaded

    def digests(self) -> set[str]:
        """The bundles that must stay in the store."""
        trial = self.trial.digest if self.trial is not None else ""
        return {self.current, self.previous, trial} - {""}


class Slots(msgspec.Struct, frozen=True):
    """`sequence` is that of the last desired document this node took to its end, `begun` the highest one it began.

    `document` is the digest of what the one with sequence `begun` asks for; "" where nobody wrote it down.
    """

    sequence: int = 0
    begun: int = 0
    document: str = ""
    models: dict[str, Slot] = {}


def tried(slot: Slot, digest: str, sequence: int) -> Slot:
    """Before a bundle is loaded; crashes with the same bundle go on being counted."""
    return msgspec.structs.replace(slot, trial=Trial(digest, sequence, crashes_of(slot, digest)))


def promoted(slot: Slot, digest: str, sequence: int) -> Slot:
    """Before a bundle answers its first request: it is current, on probation, before the last one that was proven.

    One that was proven and is only loaded again stays proven.
    """
    if slot.current == digest and slot.proven:
        return confirmed(slot)
    previous = slot.current if slot.proven else slot.previous
    trial, unloaded = Trial(digest, sequence, crashes_of(slot, digest)), slot.unloaded
    return Slot(digest, previous, proven=False, trial=trial, unloaded="" if unloaded == digest else unloaded)


def confirmed(slot: Slot) -> Slot:
    """The current bundle stays, and is all that is wanted: what was refused before is history."""
    return msgspec.structs.replace(
        slot, proven=True, trial=None, rejected=None, unloaded=slot.unloaded if slot.off else ""
    )


def refused(slot: Slot, digest: str, sequence: int, error: str) -> Slot:
    """A bundle that never became current."""
    return msgspec.structs.replace(slot, trial=None, rejected=Rejected(digest, "failed", error, sequence))


def reverted(slot: Slot, sequence: int, error: str) -> Slot:
    """The current bundle failed: the previous one is current again, and off if it was."""
    rejected = Rejected(slot.current, "reverted", error, sequence)
    return Slot(slot.previous, rejected=rejected, unloaded=slot.unloaded if slot.unloaded == slot.previous else "")


def taken_off(slot: Slot) -> Slot:
    """An operator unloads the current bundle. One on probation is no longer on trial: a death is not its doing."""
    return msgspec.structs.replace(slot, trial=None, unloaded=slot.current)


def put_back(slot: Slot, sequence: int) -> Slot:
    """An operator loads it again; one that has not passed probation is on trial again."""
    trial = None if slot.proven else Trial(slot.current, sequence)
    return msgspec.structs.replace(slot, trial=trial, unloaded="")


def waiting(slot: Slot, digest: str) -> Slot:
    """A bundle that could not be tried now, for a reason that is not its own: a death from now on is not its doing."""
    if slot.trial is None or slot.trial.digest != digest or slot.current == digest:
        return slot
    return msgspec.structs.replace(slot, trial=None)


def crashed(slot: Slot) -> Slot:
    """At the start of a node: a trial still open means that the node died during it."""
    return _with_crashes(slot, slot.trial.crashes + 1) if slot.trial is not None else slot


def stopped(slot: Slot) -> Slot:
    """At a clean stop, which speaks for the bundle on trial: its crashes are forgotten, and this is none."""
    return _with_crashes(slot, -1)


def crashes_of(slot: Slot, digest: str) -> int:
    return slot.trial.crashes if slot.trial is not None and slot.trial.digest == digest else 0


def _with_crashes(slot: Slot, crashes: int) -> Slot:
    if slot.trial is None:
        return slot
    return msgspec.structs.replace(slot, trial=msgspec.structs.replace(slot.trial, crashes=crashes))


class _Stored(msgspec.Struct, frozen=True):
    """The file: `digest` is that of the bytes of `slots`."""

    digest: str
    slots: msgspec.Raw


class SlotFile:
    """The slots of one node in `directory`. Thread-safe; every change is on disk when its method returns."""

    def __init__(self, directory: Path, disk: Disk = REAL_DISK) -> None:
        """Raises FoothillError `internal` when neither the file nor its backup can be read: never silently empty."""
        make_directories(directory, disk)
        self._disk = disk
        self._path = directory / FILE
        self._backup = directory / BACKUP_FILE
        self._lock = threading.Lock()
        self._slots = self._on_disk = self._load()

    @property
    def sequence(self) -> int:
        return self._slots.sequence

    @property
    def written(self) -> bool:
        """False while this life is ahead of what the next one would find."""
        return self._slots is self._on_disk

    @property
    def state(self) -> Slots:
        return self._slots

    @property
    def begun(self) -> int:
        return max(self._slots.begun, self._slots.sequence)

    @property
    def document(self) -> str:
        """Of the document with sequence `begun`."""
        return self._slots.document

    @property
    def models(self) -> dict[str, Slot]:
        return dict(self._slots.models)

    def get(self, model: str) -> Slot:
        return self._slots.models.get(model, Slot())

    def put(self, model: str, slot: Slot) -> None:
        with self._lock:
            self._save(msgspec.structs.replace(self._slots, models={**self._slots.models, model: slot}))

    def remove(self, model: str) -> None:
        with self._lock:
            others = {name: slot for name, slot in self._slots.models.items() if name != model}
            self._save(msgspec.structs.replace(self._slots, models=others))

    def hold(self, model: str, slot: Slot) -> None:
        """Where the disk takes nothing: the slot of this life alone; the next goes on from the last one written."""
        with self._lock:
            self._slots = msgspec.structs.replace(self._slots, models={**self._slots.models, model: slot})

    def begin(self, sequence: int, document: str = "") -> None:
        """Notes that the desired document `sequence` is being followed: none below it is from now on, and none of that
        sequence that asks for something else."""
        with self._lock:
            if sequence >= self._slots.begun:
                self._save(msgspec.structs.replace(self._slots, begun=sequence, document=document))

    def take(self, sequence: int) -> None:
        """Notes that the desired document `sequence` was worked off."""
        with self._lock:
            self._save(msgspec.structs.replace(self._slots, sequence=sequence))

    def _load(self) -> Slots:
        found = {path: _read(path) for path in (self._path, self._backup)}
        for path, slots in found.items():
            if isinstance(slots, Slots):
                if path is self._backup:
                    log.warning("%s cannot be read (%s); going on from its backup", self._path, found[self._path])
                return slots
        if all(slots is None for slots in found.values()):
            return Slots()
        raise FoothillError(
            "internal",
            f"{self._path} cannot be read ({found[self._path] or 'missing'}), and neither can its backup "
            f"({found[self._backup] or 'missing'}). Check the disk; then remove both files, and the node takes its "
            f"models from the fleet again.",
        )

    def _save(self, slots: Slots) -> None:
        if slots == self._on_disk:
            self._slots = self._on_disk
            return
        body = msgspec.json.encode(slots, order="sorted")
        data = msgspec.json.encode(_Stored(digest_of(body), msgspec.Raw(body)))
        write_file(self._path, data, disk=self._disk)
        self._slots = self._on_disk = slots
        write_file(self._backup, data, disk=self._disk)


def _read(path: Path) -> Slots | str | None:
    """The slots, or what is wrong with the file, or None when there is none."""
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        if digest_of(bytes(stored.slots)) != stored.digest:
            return "its checksum is wrong"
        return msgspec.json.decode(stored.slots, type=Slots)
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        return str(error)
