"""Models before they learn: what does not fit the plan is told at once, whatever they were given as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from model_compiler.begin import Begun, begin, check_alike
from model_compiler.data.samples import first
from model_compiler.errors import CompileError
from model_compiler.export import net_outputs
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import Net, OnnxFile, Plan
from model_compiler.replay import Ends, all_outputs_of
from tests.model_compiler.small import CLASSES, ENDS, NUMBERS, RIGHT, linear, net, plan, rows, stages_run, work_on

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
    check_alike(alone, three, three)
    with pytest.raises(CompileError, match=r"do not answer alike \(nets:three: 3, .*4\.onnx: 4 values a row\)"):
        check_alike(alone, three, four)
    beside = work_on(plan(data=unlabelled_data(), cloud=cloud), tmp_path)
    check_alike(beside, four)
    with pytest.raises(CompileError, match=r"\(nets:three: 3, cloud@1: 4 values a row\)"):
        check_alike(beside, three)


def test_a_lazy_network_begins_as_what_it_will_train(tmp_path: Path) -> None:
    found = begun(plan(student=Net("nets:lazy", lambda: nn.LazyLinear(CLASSES))), tmp_path)
    assert found.net is not None
    told = net_outputs(found.net, first(plan().data.some, 3), plan().ends)["logits"]
    assert told.shape == (3, CLASSES)
    assert found.net.weight.requires_grad
    assert not found.net.weight.is_inference()
