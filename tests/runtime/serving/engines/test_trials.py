from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from contracts.engines import Machine, Shapes, Wanted
from runtime.serving.engines.trials import MOST_REMEMBERED, TrialFile

HERE = Machine("tensorrt", "10.3.0.30", "linux", "aarch64", "jetson-orin-nano", gpu="Orin", sm=87, sm_count=8)
WANTED = Wanted("trt.s8.onnx", "sha256:o", "int8", (Shapes("image", (1, 3), (1, 3), (1, 3)),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.json"


def test_an_engine_that_twice_took_the_process_down_is_never_loaded_nor_built_again(path: Path) -> None:
    TrialFile(path).begin("sha256:e", WANTED, HERE)
    once = TrialFile(path)
    assert (once.refused, once.failed(WANTED, HERE)) == (frozenset(), False)
    once.begin("sha256:e", WANTED, HERE)
    for _ in range(2):
        twice = TrialFile(path)
        assert (twice.refused, twice.failed(WANTED, HERE)) == (frozenset({"sha256:e"}), True)


def test_the_crash_of_one_engine_is_not_counted_against_another(path: Path) -> None:
    TrialFile(path).begin("sha256:e", WANTED, HERE)
    TrialFile(path).begin("sha256:other", WANTED, HERE)
    assert TrialFile(path).refused == frozenset()


def test_an_engine_that_was_loaded_and_tested_is_loaded_again(path: Path) -> None:
    trials = TrialFile(path)
    for _ in range(3):
        trials.begin("sha256:e", WANTED, HERE)
        trials.passed()
        trials = TrialFile(path)
    assert trials.refused == frozenset()


def test_a_failed_build_is_remembered_until_the_runtime_changes(path: Path) -> None:
    TrialFile(path).fail(WANTED, HERE, "no tactic")
    trials = TrialFile(path)
    assert trials.failed(WANTED, HERE)
    assert not trials.failed(WANTED, msgspec.structs.replace(HERE, version="10.4.0.26"))
    assert not trials.failed(msgspec.structs.replace(WANTED, onnx="sha256:other"), HERE)


def test_the_newest_failures_are_remembered(path: Path) -> None:
    trials = TrialFile(path)
    for number in range(MOST_REMEMBERED + 10):
        trials.refuse(f"sha256:{number}", "bad")
    assert len(trials.refused) == MOST_REMEMBERED
    assert f"sha256:{MOST_REMEMBERED + 9}" in TrialFile(path).refused
    assert "sha256:0" not in trials.refused


def test_a_file_that_cannot_be_read_refuses_nothing(path: Path) -> None:
    TrialFile(path).fail(WANTED, HERE, "no tactic")
    path.write_bytes(b"{")
    assert not TrialFile(path).failed(WANTED, HERE)
