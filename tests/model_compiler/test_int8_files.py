"""int8 by calibration alone where that keeps the budget, else by training, else with layers in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from model_compiler.compilation import Compilation
from model_compiler.int8_files import Int8, int8_files
from model_compiler.learn import learn
from model_compiler.learning.train import Schedule
from model_compiler.plan import Budget, Learning, Net, Quantizing, artifacts_for
from tests.model_compiler.small import data, net, plan, stages_run, unlabelled, work_on

QAT = Schedule(1, 1e-3)
TRAINED = Learning(Schedule(40, 1e-2), qat=QAT)
FORMS = artifacts_for(("cpu-x86", "rtx-sm89"), ("int8",))


NEVER = Budget(-100.0)
"""A budget that nothing keeps."""


def made(directory: Path, **changes: Any) -> tuple[Int8, Compilation]:
    work = work_on(plan(artifacts=FORMS, **changes), directory)
    return int8_files(work, learn(work), FORMS), work


def test_calibration_alone_is_enough_for_a_budget_that_it_keeps(tmp_path: Path) -> None:
    found, work = made(tmp_path, learning=TRAINED, budget=Budget(20.0))
    assert (found.broken, found.qat, found.mixed) == ((), None, {})
    assert not {"qat", "mix"} & set(stages_run(work))
    assert {each.file for each in found.search.written} == {"cpu.u8s8.onnx", "trt.s8.onnx"}


def test_a_broken_budget_is_trained_for_and_then_layers_are_kept(tmp_path: Path) -> None:
    found, work = made(tmp_path, learning=TRAINED, budget=NEVER)
    assert found.qat is not None
    assert found.qat.kept == (found.qat.after > found.qat.before)
    assert stages_run(work).count("mix") == 2
    assert set(found.mixed) == {"cpu.u8s8.onnx", "trt.s8.onnx"}
    assert all(found.place(file).parent != found.directory for file in found.mixed)


@pytest.mark.parametrize("way", ["kd", "plain"])
def test_training_goes_on_from_the_teacher_and_needs_no_labels_then(tmp_path: Path, way: Any) -> None:
    parts = data()
    taught = {
        "teacher": Net("small.teacher", lambda: net(16)),
        "data": parts if way == "plain" else msgspec.structs.replace(parts, train=unlabelled(parts.train)),
        "quantizing": Quantizing(fall_back=False),
        "student": Net("small.student", net),
    }
    if way == "kd":
        taught["teacher"] = weighted(tmp_path)
    found, _ = made(tmp_path, learning=msgspec.structs.replace(TRAINED, ways=(way,)), **taught, budget=NEVER)
    assert found.qat is not None


def weighted(directory: Path) -> Net:
    from safetensors.torch import save_file

    file = directory / "teacher.safetensors"
    save_file(net(16).state_dict(), file)
    return Net("small.teacher", lambda: net(16), weights=file)


def test_without_labels_or_a_teacher_nothing_is_trained_and_that_is_said(tmp_path: Path) -> None:
    parts = data()
    found, work = made(
        tmp_path,
        student=weighted(tmp_path),
        learning=TRAINED,
        data=msgspec.structs.replace(parts, train=unlabelled(parts.train)),
        quantizing=Quantizing(fall_back=False),
        budget=NEVER,
    )
    assert found.qat is None
    assert "it learns from labels, or on from the teacher" in work.warnings[0]


def test_what_training_wins_is_measured_from_the_student_as_it_was(tmp_path: Path) -> None:
    found, _ = made(tmp_path, learning=TRAINED, quantizing=Quantizing(fall_back=False), budget=NEVER)
    before, _ = made(
        tmp_path,
        learning=msgspec.structs.replace(TRAINED, qat=None),
        quantizing=Quantizing(fall_back=False),
        budget=NEVER,
    )
    assert found.float_score == before.float_score
