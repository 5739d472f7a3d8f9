from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from edge_node.slots import (
    BACKUP_FILE,
    FILE,
    Slot,
    SlotFile,
    confirmed,
    crashed,
    crashes_of,
    promoted,
    refused,
    reverted,
    stopped,
    tried,
)

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
PROVEN = Slot(current=A)


def test_a_new_bundle_is_tried_promoted_and_confirmed() -> None:
    slot = confirmed(promoted(tried(PROVEN, B, 7), B, 7))
    assert slot == Slot(current=B, previous=A)


def test_a_bundle_that_fails_before_it_is_current_changes_nothing_but_is_remembered() -> None:
    slot = refused(tried(PROVEN, B, 7), B, 7, "no")
    assert (slot.current, slot.proven, slot.trial) == (A, True, None)
    assert slot.rejected is not None
    assert (slot.rejected.digest, slot.rejected.phase, slot.rejected.sequence) == (B, "failed", 7)


def test_a_bundle_that_fails_on_probation_gives_way_to_the_previous_one() -> None:
    slot = reverted(promoted(tried(PROVEN, B, 7), B, 7), 7, "no")
    assert (slot.current, slot.previous, slot.proven, slot.trial) == (A, "", True, None)
    assert slot.rejected is not None
    assert slot.rejected.phase == "reverted"


def test_the_previous_bundle_is_always_one_that_was_proven() -> None:
    slot = promoted(promoted(PROVEN, B, 7), C, 8)
    assert (slot.current, slot.previous) == (C, A)


def test_only_deaths_during_a_trial_are_counted() -> None:
    assert crashed(PROVEN) == PROVEN
    on_probation = promoted(PROVEN, B, 7)
    assert crashes_of(crashed(crashed(on_probation)), B) == 2
    assert crashes_of(tried(crashed(on_probation), C, 8), C) == 0


def test_a_clean_stop_during_a_trial_is_no_crash() -> None:
    slot = crashed(stopped(crashed(promoted(PROVEN, B, 7))))
    assert crashes_of(slot, B) == 0
    assert stopped(PROVEN) == PROVEN


def _refuse_another(slot: Slot, digest: str) -> Slot:
    return slot if slot.current == digest else refused(slot, digest, 1, "no")


def _revert_on_probation(slot: Slot, digest: str) -> Slot:
    return slot if slot.proven else reverted(slot, 1, "no")


STEPS: dict[str, Callable[[Slot, str], Slot]] = {
    "try": lambda slot, digest: tried(slot, digest, 1),
    "promote": lambda slot, digest: promoted(tried(slot, digest, 1), digest, 1),
    "confirm": lambda slot, digest: confirmed(slot),
    "refuse": _refuse_another,
    "revert": _revert_on_probation,
    "crash": lambda slot, digest: crashed(slot),
    "stop": lambda slot, digest: stopped(slot),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from([A, B, C]))))
def test_whatever_happens_something_proven_is_kept_once_there_was_something(steps: list[tuple[str, str]]) -> None:
    slot = PROVEN
    for step, digest in steps:
        slot = STEPS[step](slot, digest)
        assert slot.current
        assert slot.proven or slot.previous
        assert {slot.current, slot.previous} - {""} <= slot.digests()


def test_slots_outlive_the_process(tmp_path: Path) -> None:
    slots = SlotFile(tmp_path)
    slots.put("digits", promoted(PROVEN, B, 7))
    slots.put("faces", Slot(current=C))
    slots.take(7)
    again = SlotFile(tmp_path)
    assert again.models == slots.models
    assert again.sequence == 7
    again.remove("faces")
    assert set(SlotFile(tmp_path).models) == {"digits"}


def test_a_node_without_slots_starts_empty(tmp_path: Path) -> None:
    slots = SlotFile(tmp_path / "new")
    assert (slots.models, slots.sequence) == ({}, 0)
    assert slots.get("digits") == Slot()


def _break_text(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def _break_letter(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha\xff56"))


def _break_checksum(path: Path) -> None:
    document = json.loads(path.read_bytes())
    document["slots"]["sequence"] = 99
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("damage", [_break_text, _break_letter, _break_checksum, Path.unlink])
def test_a_damaged_file_is_replaced_by_its_backup(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    SlotFile(tmp_path).put("digits", PROVEN)
    assert callable(damage)
    damage(tmp_path / FILE)
    assert SlotFile(tmp_path).models == {"digits": PROVEN}
    assert "backup" in caplog.text


def test_without_a_good_copy_the_node_does_not_pretend_to_be_empty(tmp_path: Path) -> None:
    SlotFile(tmp_path).put("digits", PROVEN)
    _break_text(tmp_path / FILE)
    (tmp_path / BACKUP_FILE).unlink()
    with pytest.raises(FoothillError, match="remove both files"):
        SlotFile(tmp_path)


WRITER = """
import sys
from pathlib import Path
from edge_node.slots import Slot, SlotFile
slots = SlotFile(Path(sys.argv[1]))
print("started", flush=True)
number = slots.sequence
while True:
    number += 1
    slots.put("digits", Slot(current="sha256:" + f"{number:064x}"))
    slots.take(number)
"""


def test_killed_at_any_moment_the_file_holds_one_whole_state(tmp_path: Path) -> None:
    rng = random.Random(0)
    seen = 0
    for _ in range(25):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(timeout=rng.uniform(0.0, 0.03))
            writer.send_signal(signal.SIGKILL)
        slots = SlotFile(tmp_path)
        number = int(slots.get("digits").current.removeprefix("sha256:") or "0", 16)
        assert slots.sequence in (number - 1, number)
        assert slots.sequence >= seen
        seen = slots.sequence
    assert seen > 0
