"""From a plan to a float model: who learns from whom, what is refused, what is learned again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.export import net_outputs
from model_compiler.learn import Learned, learn
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule
from model_compiler.plan import Budget, Learning, Net, OnnxFile, Plan, Prune, Training
from model_compiler.replay import outputs_of
from tests.model_compiler.small import CLASSES, ENDS, NUMBERS, RIGHT, linear, net, plan, rows, stages_run, work_on

pytestmark = pytest.mark.integration

SHORT = Schedule(epochs=2, peak=0.05, batch=32)
LONGER = Schedule(epochs=20, peak=0.05, batch=32)
TEST = rows(400, 77)


def teacher_net() -> nn.Module:
    return net(32)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a linear network that never errs."""
    path: Path = tmp_path_factory.mktemp("right") / "right.safetensors"
    save_file({"weight": torch.from_numpy(RIGHT.T.copy()), "bias": torch.zeros(CLASSES)}, path)
    return path


def sure(weights: Path) -> Net:
    return Net("nets:sure", lambda: nn.Linear(NUMBERS, CLASSES), weights)


def learned(told: Plan, directory: Path) -> tuple[Learned, list[str]]:
    work = work_on(told, directory)
    return learn(work), stages_run(work)


def accuracy(onnx: Path) -> float:
    return float((outputs_of(onnx, TEST.inputs, ENDS).argmax(axis=1) == TEST.labels).mean())


def test_a_student_without_a_teacher_learns_from_the_labels(tmp_path: Path) -> None:
    told = plan(learning=Learning(LONGER))
    found, stages = learned(told, tmp_path)
    assert stages == ["train", "export"]
    assert found.teacher is None
    assert found.reference == found.student
    assert found.student.net is not None
    assert accuracy(found.student.onnx) > 0.9
    answers = net_outputs(found.student.net, TEST.inputs, ENDS)["logits"]
    assert outputs_of(found.student.onnx, TEST.inputs, ENDS) == pytest.approx(answers, abs=1e-4)
    again, stages = learned(told, tmp_path)
    assert stages == []
    assert (again.student.onnx, again.student.digest) == (found.student.onnx, found.student.digest)


def test_a_student_learns_from_a_finished_teacher_where_no_label_is_known(tmp_path: Path, right: Path) -> None:
    bare = {
        name: Arrays(part.inputs, np.full(len(part), -1)) for name, part in msgspec.structs.asdict(plan().data).items()
    }
    told = plan(data=msgspec.structs.replace(plan().data, **bare), teacher=sure(right), learning=Learning(LONGER))
    found, stages = learned(told, tmp_path)
    assert stages == ["export", "teach", "distil", "export"]
    assert (found.way, found.trials, found.pruned) == ("kd", (), None)
    assert found.teacher is not None
    assert accuracy(found.teacher.onnx) == 1.0
    assert found.reference == found.teacher
    assert accuracy(found.student.onnx) > 0.9


def test_an_onnx_file_teaches_too(tmp_path: Path) -> None:
    """Its answers are all that tells right from wrong: every label is another's."""
    file = linear(tmp_path / "teacher.onnx", {"scores": RIGHT}, given="x", batch=1)
    wrong = Arrays(rows(256, 0).inputs, (rows(256, 0).labels + 1) % CLASSES)
    data = msgspec.structs.replace(plan().data, train=wrong)
    found, stages = learned(plan(data=data, teacher=OnnxFile(file), learning=Learning(LONGER)), tmp_path)
    assert stages == ["import", "teach", "distil", "export"]
    assert found.teacher is not None
    assert found.teacher.net is None
    assert accuracy(found.student.onnx) > 0.8


def test_of_several_ways_the_best_after_a_trial_is_gone_in_full(tmp_path: Path, right: Path) -> None:
    """The one named first learns from labels alone, and every label is another's."""
    wrong = Arrays(rows(256, 0).inputs, (rows(256, 0).labels + 1) % CLASSES)
    learning = Learning(SHORT, ways=("plain", "kd"), trial=LONGER)
    data = msgspec.structs.replace(plan().data, train=wrong)
    found, stages = learned(plan(data=data, teacher=sure(right), learning=learning), tmp_path)
    assert stages == ["export", "teach", "try ways", "distil", "export"]
    assert [each.way for each in found.trials] == ["kd", "plain"]
    assert found.trials[0].score > 0.8 > 0.2 > found.trials[1].score
    assert found.way == "kd"


def test_endless_views_are_asked_for_on_line(tmp_path: Path, right: Path) -> None:
    learning = Learning(SHORT, augment=Augment(views=0))
    assert learned(plan(teacher=sure(right), learning=learning), tmp_path)[1] == ["export", "distil", "export"]


def test_a_pruned_teacher_learns_again_from_the_whole_one(tmp_path: Path) -> None:
    whole = Net("nets:whole", teacher_net, training=Training(LONGER))
    told = plan(student=None, teacher=whole, prune=Prune("magnitude", 0.5), learning=Learning(SHORT))
    found, stages = learned(told, tmp_path)
    assert stages == ["train", "export", "prune", "teach", "distil", "export"]
    assert found.pruned is not None
    assert found.teacher is not None
    assert found.student.net is not None
    assert [found.student.net[0].out_features, found.student.net[2].in_features] == [16, 16]
    assert found.student.onnx.stat().st_size < found.teacher.onnx.stat().st_size
    assert accuracy(found.student.onnx) > 0.7


def test_a_student_that_comes_with_weights_is_not_trained(tmp_path: Path, right: Path) -> None:
    file = OnnxFile(linear(tmp_path / "teacher.onnx", {"logits": -RIGHT}))
    found, stages = learned(plan(student=sure(right), teacher=file, learning=Learning(SHORT, qat=SHORT)), tmp_path)
    assert stages == ["import", "export"]
    assert accuracy(found.student.onnx) == 1.0
    assert accuracy(found.reference.onnx) == 0.0


def test_without_a_student_the_teacher_is_what_is_compiled(tmp_path: Path, right: Path) -> None:
    found, stages = learned(plan(student=None, teacher=sure(right)), tmp_path)
    assert stages == ["export"]
    assert (found.teacher, found.way) == (None, "plain")
    assert accuracy(found.student.onnx) == 1.0


UNLABELLED = Arrays(rows(64, 0).inputs, np.full(64, -1))
NONE = Arrays(rows(0, 0).inputs, rows(0, 0).labels)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"student": None}, r"largest@1: the plan names neither a student nor a teacher"),
        ({}, r"small\.net has neither weights nor a schedule to be trained by"),
        ({"learning": Learning(SHORT), "train": NONE}, r"largest@1: there are no training samples\. Name them"),
        ({"learning": Learning(SHORT), "train": UNLABELLED}, r"have no label, and there is no teacher to learn from"),
        ({"teacher": "right"}, r"the student has neither weights nor a \[learn\] table to learn by"),
        ({"teacher": "right", "learning": Learning(SHORT), "train": NONE}, r"there are no training samples"),
        ({"teacher": "onnx", "student": None, "prune": Prune("magnitude", 0.5)}, r"pruning needs a teacher"),
        ({"student": None, "prune": Prune("magnitude", 0.5)}, r"pruning needs a teacher that is a torch network"),
    ],
)  # fmt: skip
def test_what_cannot_learn_as_it_says_is_refused(
    tmp_path: Path, right: Path, changes: dict[str, Any], told: str
) -> None:
    teachers = {"right": sure(right), "onnx": OnnxFile(linear(tmp_path / "m.onnx", {"logits": RIGHT}))}
    parts = {"train": changes["train"]} if "train" in changes else {}
    given = {name: value for name, value in changes.items() if name != "train"}
    if "teacher" in given:
        given["teacher"] = teachers[given["teacher"]]
    with pytest.raises(CompileError, match=told):
        learned(plan(data=msgspec.structs.replace(plan().data, **parts), **given), tmp_path)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, right: Path) -> Path:
    """Where the stages of `first_of` are kept."""
    directory: Path = tmp_path_factory.mktemp("before")
    learned(first_of(right), directory)
    return directory


def first_of(right: Path) -> Plan:
    return plan(teacher=sure(right), learning=Learning(SHORT))


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": Budget(9.0), "how": "otherwise", "labels": ("a", "b", "c"), "version": "2"},
        {"learning": Learning(SHORT, qat=SHORT)},
        {"student": Net("renamed", net)},
        {"data": msgspec.structs.replace(plan().data, test=rows(9, 8), validation=rows(9, 9), ranges=rows(9, 9))},
    ],
)
def test_what_does_not_teach_leaves_all_as_it_was(before: Path, right: Path, changes: dict[str, Any]) -> None:
    assert learned(msgspec.structs.replace(first_of(right), **changes), before)[1] == []


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"seed": 1}, ["distil", "export"]),
        ({"learning": Learning(SHORT, augment=Augment(views=2))}, ["teach", "distil"]),
        ({"student": Net("small.net", net, code="changed")}, ["distil", "export"]),
        ({"data": msgspec.structs.replace(plan().data, train=rows(256, 8))}, ["teach", "distil", "export"]),
    ],
)
def test_what_teaches_is_learned_from_again_when_it_changes(
    before: Path, right: Path, changes: dict[str, Any], stages: list[str]
) -> None:
    """Two views without anything that may differ between them teach the same: it need not be exported again."""
    assert learned(msgspec.structs.replace(first_of(right), **changes), before)[1] == stages
