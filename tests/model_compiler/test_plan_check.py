"""A plan without the samples that it needs is refused by the part's name, before anything runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.learning.train import Schedule
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import Learning, Net, OnnxFile, Plan, Prune, Training, artifacts_for
from model_compiler.plan_check import check_parts, check_samples
from model_compiler.stages import Stages
from tests.model_compiler.small import data, net, plan, rows, unlabelled

SHORT = Schedule(1, 0.1)
INT8 = artifacts_for(("cpu-x86",), ("int8", "fp32"))
TEACHER = Net("small.teacher", net, training=Training(SHORT))
FINISHED = OnnxFile(Path("finished.onnx"))
TWO_WAYS = Learning(SHORT, ways=("plain", "kd"), trial=SHORT)


def without(*parts: str, **changes: Any) -> Plan:
    empty = dict.fromkeys(parts, rows(0, 0))
    return plan(data=msgspec.structs.replace(data(), **empty), **changes)


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (without("train"), r"no training samples, and small\.net learns from them\. Name `train` in \[data\]"),
        (without("train", student=FINISHED, teacher=TEACHER), r"no training samples, and small\.teacher learns"),
        (without("ranges", artifacts=INT8), r"no calibration samples, and int8 .* Name `calibration` in \[data\], or"),
        (without("validation", artifacts=INT8), r"no validation samples, and int8 is chosen by them\. Name `validat"),
        (without("validation", teacher=FINISHED, learning=TWO_WAYS), "no validation samples, and the best of several"),
        (
            without("validation", teacher=TEACHER, student=None, prune=Prune("sensitivity", 0.5)),
            "no validation samples, and pruning by sensitivity judges layers",
        ),
        (
            plan(
                data=msgspec.structs.replace(data(), validation=unlabelled(rows(9, 1))),
                teacher=FINISHED,
                learning=TWO_WAYS,
            ),
            "some validation samples have no label, and the best of several ways is chosen by accuracy",
        ),
    ],
)
def test_what_is_missing_is_told_by_its_name_with_what_needs_it(told: Plan, wrong: str) -> None:
    with pytest.raises(CompileError, match=rf"^largest@1: (there are )?{wrong}"):
        check_parts(told)


def test_what_nothing_needs_may_be_missing() -> None:
    finished = {"student": FINISHED, "teacher": FINISHED}
    for told in (
        plan(),
        without("ranges", "validation", "fit", "threshold", "test"),
        without("train", "ranges", "validation", "fit", "threshold", **finished),
        without("train", "fit", "threshold", "test", artifacts=INT8, **finished),
        without("validation", teacher=FINISHED, learning=Learning(SHORT)),
        without("validation", teacher=TEACHER, student=None, prune=Prune("magnitude", 0.5)),
        plan(
            data=msgspec.structs.replace(data(), validation=unlabelled(rows(9, 1))),
            teacher=FINISHED,
            learning=TWO_WAYS,
            metric=lambda outputs, labels: float(np.mean(labels)),
        ),
    ):
        check_parts(told)


def test_nothing_runs_before_it_is_told(tmp_path: Path) -> None:
    told, stages = without("validation", artifacts=INT8, learning=Learning(SHORT)), Stages(tmp_path / "stages")
    with pytest.raises(CompileError, match="no validation samples"):
        compile_bundle(told, tmp_path / "out", stages=stages)
    assert stages.ran == []


def sharing(one: str, other: str, **changes: Any) -> Plan:
    return plan(data=msgspec.structs.replace(data(), **{one: getattr(data(), other)}), **changes)


@pytest.mark.parametrize("other", ["train", "ranges", "validation", "fit", "test"])
def test_a_threshold_is_certified_on_samples_of_its_own(other: str) -> None:
    name = "calibration" if other == "ranges" else other
    with pytest.raises(CompileError, match=rf"`threshold` has samples that `{name}` has too\. A promise holds only by"):
        check_samples(sharing("threshold", other), certified=True)
    check_samples(sharing("threshold", other), certified=False)
    check_samples(sharing("threshold", other, kind="tensors", task="detection"), certified=True)


def test_what_was_learned_does_not_measure() -> None:
    for some in (sharing("test", "train"), sharing("test", "train", student=FINISHED, teacher=TEACHER)):
        with pytest.raises(CompileError, match=r"`test` has samples that `train` has too\. A score on samples that a"):
            check_samples(some, certified=False)
    check_samples(sharing("test", "train", student=FINISHED), certified=False)


def test_parts_that_share_a_use_may_be_one() -> None:
    """Ranges, validation and fit all choose; so does a demonstration without many samples."""
    one = data().fit
    check_samples(plan(data=msgspec.structs.replace(data(), ranges=one, validation=one)), certified=True)
    nothing = dict.fromkeys(("train", "ranges", "validation", "threshold"), rows(0, 0))
    check_samples(plan(data=msgspec.structs.replace(data(), **nothing, fit=data().test)), certified=True)


def test_samples_of_few_values_are_told_apart_by_their_digest() -> None:
    few = [Arrays(np.sign(rows(400, seed).inputs), rows(400, seed).labels) for seed in (0, 1)]
    for threshold, holds in ((few[1], True), (few[0], False)):
        told = plan(data=msgspec.structs.replace(data(), fit=few[0], threshold=threshold))
        with nullcontext() if holds else pytest.raises(CompileError, match="`threshold` has samples that `fit`"):
            check_samples(told, certified=True)


@pytest.mark.parametrize("part", ["train", "ranges", "validation", "fit", "threshold", "test"])
def test_inputs_that_are_not_finite_are_told_with_their_row(part: str) -> None:
    inputs = rows(40, 9).inputs.copy()
    inputs[7, 2] = np.inf
    broken = msgspec.structs.replace(data(), **{part: Arrays(inputs, rows(40, 9).labels)})
    name = "calibration" if part == "ranges" else part
    with pytest.raises(CompileError, match=rf"^Row 7 of {name} holds NaN or infinity\. Mend that row"):
        check_samples(plan(data=broken), certified=False)
