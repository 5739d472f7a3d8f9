"""Resumable stages: run once for the same inputs, again for others, never taken half done."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from model_compiler.errors import CompileError
from model_compiler.progress import Advance, Step, silent
from model_compiler.stages import Stages, file_digest


class Baker:
    """Counts how often it really works."""

    def __init__(self, words: str = "bread") -> None:
        self.words, self.worked = words, 0

    def __call__(self, directory: Path, advance: Advance) -> None:
        self.worked += 1
        advance(0.5)
        (directory / "loaf.txt").write_text(self.words)


def test_the_same_inputs_are_not_worked_on_twice_in_this_process_or_the_next(tmp_path: Path) -> None:
    baker = Baker()
    first = Stages(tmp_path)
    kept = first.run("b@1", "bake", {"flour": "a", "heat": 3}, baker, silent)
    again = Stages(tmp_path)
    assert again.run("b@1", "bake", {"heat": 3, "flour": "a"}, baker, silent) == kept
    assert (kept / "loaf.txt").read_text() == "bread"
    assert baker.worked == 1
    assert [ran.reused for ran in (*first.ran, *again.ran)] == [False, True]
    assert again.ran[0].took_s == first.ran[0].took_s


@pytest.mark.parametrize("inputs", [{"flour": "b"}, {"flour": "a", "salt": 1}, {}])
def test_other_inputs_are_another_stage(tmp_path: Path, inputs: dict[str, object]) -> None:
    baker, stages = Baker(), Stages(tmp_path)
    one, other = (stages.run("b@1", "bake", each, baker, silent) for each in ({"flour": "a"}, inputs))
    assert one != other
    assert baker.worked == 2


def test_a_stage_that_was_cut_short_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    def burn(directory: Path, advance: Advance) -> None:
        (directory / "loaf.txt").write_text("black")
        raise KeyboardInterrupt

    stages, baker = Stages(tmp_path), Baker()
    with pytest.raises(KeyboardInterrupt):
        stages.run("b@1", "bake", {}, burn, silent)
    assert list(tmp_path.iterdir()) == []
    assert (stages.run("b@1", "bake", {}, baker, silent) / "loaf.txt").read_text() == "bread"


@pytest.mark.parametrize("damage", ["changed", "removed", "added"])
def test_a_stage_whose_files_were_changed_runs_again(tmp_path: Path, damage: str) -> None:
    stages, baker = Stages(tmp_path), Baker()
    kept = stages.run("b@1", "bake", {}, baker, silent)
    if damage == "changed":
        (kept / "loaf.txt").write_text("stone")
    elif damage == "removed":
        (kept / "loaf.txt").unlink()
    else:
        (kept / "crumb.txt").write_text("")
    assert stages.run("b@1", "bake", {}, baker, silent) == kept
    assert baker.worked == 2
    assert [file.name for file in sorted(kept.iterdir())] == ["loaf.txt", "stage.json"]


def test_progress_begins_at_0_and_ends_at_1_reused_or_not(tmp_path: Path) -> None:
    stages, steps = Stages(tmp_path), list[Step]()
    for _ in range(2):
        stages.run("b@1", "bake", {}, Baker(), steps.append)
    assert [step.done for step in steps] == [0.0, 0.5, 1.0, 0.0, 1.0]


def test_a_disk_that_does_not_take_it_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompileError, match="--stages"):
        Stages(tmp_path / "file").run("b@1", "bake", {}, Baker(), silent)
    with pytest.raises(CompileError, match="existing file"):
        file_digest(tmp_path / "missing")


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    kept = Stages(tmp_path).run("b@1", "bake", {}, Baker(), silent)
    part = kept.with_name(f"{kept.name}.part")
    kept.rename(part)
    (part / "crumb.txt").write_text("half")
    assert Stages(tmp_path).run("b@1", "bake", {}, Baker(), silent) == kept
    assert sorted(tmp_path.iterdir()) == [kept]
    assert sorted(file.name for file in kept.iterdir()) == ["loaf.txt", "stage.json"]


def test_two_compilations_at_once_work_once(tmp_path: Path) -> None:
    """The second waits for the first, and takes what it made."""
    entered, baker = threading.Event(), Baker()

    def slow(directory: Path, advance: Advance) -> None:
        entered.set()
        time.sleep(0.2)
        baker(directory, advance)

    stages = [Stages(tmp_path), Stages(tmp_path)]
    first = threading.Thread(target=stages[0].run, args=("b@1", "bake", {}, slow, silent))
    first.start()
    entered.wait()
    kept = stages[1].run("b@1", "bake", {}, slow, silent)
    first.join()
    assert baker.worked == 1
    assert [each.ran[0].reused for each in stages] == [False, True]
    assert (kept / "loaf.txt").read_text() == "bread"
    assert sorted(tmp_path.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"\(No space left on device\)\. Free space .* --stages"),
        (FileNotFoundError(errno.ENOENT, "No such file", "rows.csv"), r"'bake' stopped at rows\.csv: No such file"),
    ],
)
def test_a_failing_file_is_told_with_whose_it_is(tmp_path: Path, error: OSError, told: str) -> None:
    def fail(directory: Path, advance: Advance) -> None:
        raise error

    stages = Stages(tmp_path)
    kept = stages.run("b@1", "mix", {}, Baker(), silent)
    with pytest.raises(CompileError, match=told):
        stages.run("b@1", "bake", {}, fail, silent)
    assert sorted(tmp_path.iterdir()) == [kept]
