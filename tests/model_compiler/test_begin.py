"""Models before they learn: what does not fit the plan is told at once, whatever they were given as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from model_compiler.begin import Begun, Models, begin, begin_models, check_alike
from model_compiler.data.samples import first
from model_compiler.errors import CompileError
from model_compiler.export import net_outputs
from model_compiler.learn import learn
from model_compiler.learning.train import Schedule
from model_compiler.networks import digest_of_net
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import Net, OnnxFile, Plan, Training
from model_compiler.replay import Ends, all_outputs_of
from tests.model_compiler.small import (
    CLASSES,
    ENDS,
    NUMBERS,
    RIGHT,
    first_net,
    linear,
    net,
    plan,
    rows,
    stages_run,
    work_on,
)

OTHER = -RIGHT
TWO = {"logits": RIGHT, "features": OTHER}
INPUTS = rows(4, 3).inputs


def begun(told: Plan, directory: Path) -> Begun:
    assert told.student is not None
    return begin(work_on(told, directory), told.student)


def given(path: Path, ends: Ends = ENDS, **changes: Any) -> Plan:
    return plan(student=OnnxFile(path), ends=ends, **changes)


def test_a_network_begins_with_its_weights_and_learns_only_where_it_has_none(tmp_path: Path) -> None:
    found = begun(plan(), tmp_path)
    assert (found.learns, found.width, found.onnx, found.code) == (True, CLASSES, None, "")
    assert found.net is not None
    finished = begun(given(linear(tmp_path / "m.onnx", {"logits": RIGHT})), tmp_path)
    assert (finished.learns, finished.width, finished.net) == (False, CLASSES, None)


def test_a_foreign_files_tensors_get_the_plans_names_by_their_places(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", {"scores": RIGHT, "hidden": OTHER}, given="x")
    ends = Ends("numbers", ("logits", "features"))
    found = begun(given(path, ends), tmp_path)
    assert found.onnx is not None
    got = all_outputs_of(found.onnx, INPUTS, ends)
    assert got["logits"] == pytest.approx(INPUTS @ RIGHT)
    assert got["features"] == pytest.approx(INPUTS @ OTHER)


def test_outputs_that_have_the_plans_names_keep_them_in_whatever_order(tmp_path: Path) -> None:
    """Which answers is the plan's word; what a name holds is the file's."""
    path = linear(tmp_path / "m.onnx", TWO)
    files = {}
    for order in (("logits", "features"), ("features", "logits"), ("features",)):
        found = begun(given(path, Ends("numbers", order)), tmp_path)
        assert found.onnx is not None
        got = all_outputs_of(found.onnx, INPUTS, Ends("numbers", order))
        assert all(got[name] == pytest.approx(INPUTS @ TWO[name]) for name in order)
        files[order] = found.onnx.read_bytes()
    assert len(set(files.values())) == 2, "the stages that follow must tell the orders apart"


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    told = given(linear(tmp_path / "m.onnx", TWO))
    runs = [work_on(told, tmp_path) for _ in range(2)]
    for work in runs:
        begin(work, OnnxFile(tmp_path / "m.onnx"))
    assert [stages_run(work) for work in runs] == [["import"], []]


class Fails(nn.Module):  # type: ignore[misc]
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise KeyError("weights")


def wide() -> nn.Module:
    return nn.Linear(NUMBERS + 1, CLASSES)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Fails, r"^nets:bad on inputs \[2, 6\] raised KeyError: 'weights' \(.*test_begin\.py:\d+\)"),
        (wide, r"^nets:bad on inputs \[2, 6\] raised RuntimeError: mat1 and mat2"),
        (lambda: nn.Linear(NUMBERS, 1), r"^nets:bad answers with one value a row"),
        (lambda: nn.Unflatten(1, (2, 3)), r"^nets:bad gives logits as \[2, 2, 3\]; logits are \[rows, values\]"),
        (lambda: nn.Flatten(0), r"^nets:bad gives logits as \[12\] for 2 inputs\. Give one row for each"),
    ],
)
def test_a_network_that_does_not_fit_is_told_before_it_learns(tmp_path: Path, make: Any, told: str) -> None:
    with pytest.raises(CompileError, match=told):
        begun(plan(student=Net("nets:bad", make)), tmp_path)


def test_a_network_must_give_every_output_of_the_plan(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"gives no output 'boxes'\. Name as many outputs as it gives"):
        begun(plan(ends=Ends("numbers", ("logits", "boxes"))), tmp_path)


def test_a_file_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", {"scores": RIGHT})
    with pytest.raises(CompileError, match=r"outputs scores cannot stand for one with logits, boxes"):
        begun(given(path, Ends("numbers", ("logits", "boxes"))), tmp_path)
    narrow = msgspec.structs.replace(plan().data, fit=msgspec.structs.replace(rows(8, 0), inputs=INPUTS[:, :5]))
    with pytest.raises(
        CompileError, match=r"m\.onnx takes numbers \[-1, 6\] \(-1: any\), and the samples are \[5\] each"
    ):
        begun(given(path, data=narrow), tmp_path)
    huge = linear(tmp_path / "huge.onnx", {"logits": np.full(RIGHT.shape, 3e38)})
    with pytest.raises(CompileError, match=r"not as finite \(2, 3\): the model was lost"):
        begun(given(huge), tmp_path)


def cloud_of(directory: Path, classes: int) -> Packed:
    path = linear(directory / f"{classes}.onnx", {"logits": 8 * np.eye(NUMBERS, classes)})
    labelled = msgspec.structs.replace(
        plan(), data=unlabelled_data(), name="cloud", tier="cloud", student=OnnxFile(path)
    )
    return compile_bundle(labelled, directory / f"cloud-{classes}", report=False)


def unlabelled_data() -> Any:
    none = np.full(16, -1)
    parts = {
        name: msgspec.structs.replace(rows(16, 1), labels=none) for name in ("train", "ranges", "fit", "threshold")
    }
    return msgspec.structs.replace(plan().data, **parts, validation=parts["fit"], test=parts["fit"])


def test_models_with_other_numbers_of_classes_are_told_apart_by_name(tmp_path: Path) -> None:
    cloud = cloud_of(tmp_path, 4)
    alone = work_on(plan(data=unlabelled_data()), tmp_path)
    three = begin(alone, Net("nets:three", net))
    four = begin(alone, OnnxFile(tmp_path / "4.onnx"))
    check_alike(alone, Models(three, three))
    with pytest.raises(
        CompileError, match=r"alike \(teacher nets:three: 3, student .*4\.onnx: 4 values a row\)\. Give all"
    ):
        check_alike(alone, Models(three, four))
    beside = work_on(plan(data=unlabelled_data(), cloud=cloud), tmp_path)
    check_alike(beside, Models(None, four))
    with pytest.raises(CompileError, match=r"\(student nets:three: 3, cloud bundle cloud@1: 4 values a row\)"):
        check_alike(beside, Models(None, three))


def test_two_networks_of_one_callable_are_told_apart(tmp_path: Path) -> None:
    """Teacher and student are often one callable with other arguments."""
    told = plan(
        data=unlabelled_data(),
        teacher=Net("nets:any", lambda: nn.Linear(NUMBERS, 4)),
        student=Net("nets:any", lambda: nn.Linear(NUMBERS, 3)),
    )
    with pytest.raises(CompileError, match=r"\(teacher nets:any: 4, student nets:any: 3 values a row\)"):
        begin_models(work_on(told, tmp_path))


class Branches(nn.Module):  # type: ignore[misc]
    """Runs, and cannot be exported: which way it goes depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(NUMBERS, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.one(inputs) if float(inputs.sum()) > 0 else -self.one(inputs)


def local() -> nn.Module:
    class Local(nn.Linear):  # type: ignore[misc]
        pass

    return Local(NUMBERS, CLASSES)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Branches, r"^student nets:odd: torch cannot export this network: "),
        (local, r"^student nets:odd: Local cannot be kept: .*Define its classes at the top of their module"),
    ],
)
def test_a_student_that_cannot_become_a_file_is_told_before_its_teacher_learns(
    tmp_path: Path, make: Any, told: str
) -> None:
    teacher = Net("nets:whole", net, training=Training(Schedule(1, 0.1)))
    work = work_on(plan(teacher=teacher, student=Net("nets:odd", make)), tmp_path)
    with pytest.raises(CompileError, match=told):
        learn(work)
    assert stages_run(work) == []


def test_a_network_learns_as_if_it_had_not_been_tried_out(tmp_path: Path) -> None:
    tried = begin_models(work_on(plan(), tmp_path)).student
    assert tried is not None
    assert tried.net is not None
    assert digest_of_net(tried.net) == digest_of_net(first_net())


def test_a_lazy_network_begins_as_what_it_will_train(tmp_path: Path) -> None:
    found = begun(plan(student=Net("nets:lazy", lambda: nn.LazyLinear(CLASSES))), tmp_path)
    assert found.net is not None
    told = net_outputs(found.net, first(plan().data.some, 3), plan().ends)["logits"]
    assert told.shape == (3, CLASSES)
    assert found.net.weight.requires_grad
    assert not found.net.weight.is_inference()
