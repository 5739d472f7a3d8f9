"""The cloud bundle as one of a compilation's models: under the plan's names, whatever its own are."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from contracts.manifest import Postprocess
from model_compiler.cloud import cloud_model
from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.onnx_ends import ends_of
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import OnnxFile
from model_compiler.replay import Ends, all_outputs_of
from tests.model_compiler.small import ENDS, RIGHT, linear, plan, rows, stages_run, work_on

INPUTS: Floats = rows(5, 3).inputs


def cloud_of(directory: Path, ends: Ends, batch: int | str = "n") -> Packed:
    """A bundle whose first output holds what is right, and any other its negative."""
    weights = {name: -RIGHT if number else RIGHT for number, name in enumerate(ends.outputs)}
    path = linear(directory / "given.onnx", weights, given=ends.input, batch=batch)
    fitting = msgspec.structs.replace(ends, batch=1 if batch == 1 else None)
    whole = plan(name="cloud", tier="cloud", student=OnnxFile(path), ends=fitting)
    return compile_bundle(whole, directory / "cloud", report=False)


def test_without_a_cloud_bundle_there_is_no_such_model(tmp_path: Path) -> None:
    assert cloud_model(work_on(plan(), tmp_path)) is None


def test_a_bundle_of_the_plans_names_is_taken_as_it_is(tmp_path: Path) -> None:
    packed = cloud_of(tmp_path, Ends("numbers", ("logits", "more")))
    work = work_on(plan(cloud=packed), tmp_path / "stages")
    assert cloud_model(work) == packed.first_artifact
    assert stages_run(work) == []


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_bundle_of_other_names_is_renamed_once(tmp_path: Path, batch: int | str) -> None:
    packed = cloud_of(tmp_path, Ends("x", ("scores", "hidden")), batch)
    for run in (["cloud"], []):
        work = work_on(plan(cloud=packed), tmp_path / "stages")
        found = cloud_model(work)
        assert found is not None
        assert stages_run(work) == run
        there = ends_of(found)
        assert (there.input, there.outputs[0], there.batch) == ("numbers", "logits", 1 if batch == 1 else None)
        got = all_outputs_of(found, INPUTS, msgspec.structs.replace(ENDS, batch=there.batch))
        assert got["logits"] == pytest.approx(INPUTS @ RIGHT)


@pytest.mark.parametrize("answers", ["scores", "logits"])
def test_the_output_that_answers_there_answers_here_whatever_its_place_and_name(tmp_path: Path, answers: str) -> None:
    packed = cloud_of(tmp_path, Ends("numbers", ("scores", "logits")))
    manifest = msgspec.structs.replace(packed.manifest, postprocess=Postprocess(answers, "logits"))
    found = cloud_model(work_on(plan(cloud=Packed(packed.directory, "sha256:", manifest)), tmp_path / "stages"))
    assert found is not None
    right = INPUTS @ (RIGHT if answers == "scores" else -RIGHT)
    assert all_outputs_of(found, INPUTS, ENDS)["logits"] == pytest.approx(right)


def test_a_bundle_with_fewer_outputs_than_the_plan_cannot_stand_for_it(tmp_path: Path) -> None:
    packed = cloud_of(tmp_path, Ends("numbers", ("scores",)))
    wanted = plan(cloud=packed, ends=Ends("numbers", ("logits", "boxes")))
    with pytest.raises(CompileError, match=r"outputs scores cannot stand for one with logits, boxes"):
        cloud_model(work_on(wanted, tmp_path / "stages"))
