"""A plan without the samples that it needs is refused by the part's name, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model_compiler.errors import CompileError
from model_compiler.learning.train import Schedule
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import Learning, Net, OnnxFile, Plan, Prune, Training, artifacts_for
from model_compiler.plan_check import check_parts
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
