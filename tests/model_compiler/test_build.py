"""The files of a bundle: which there are, in what order nodes prefer them, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from contracts.boards import BOARDS
from contracts.manifest import Precision
from model_compiler.build import Built, build
from model_compiler.learn import learn
from model_compiler.learning.train import Schedule
from model_compiler.plan import Budget, Learning, Quantizing, artifacts_for
from model_compiler.replay import outputs_of
from tests.model_compiler.small import ENDS, plan, rows, stages_run, work_on

TAUGHT = Learning(Schedule(40, 1e-2))
INPUTS = rows(32, 9).inputs


def built(directory: Path, targets: tuple[str, ...], precisions: tuple[Precision, ...], **changes: Any) -> Built:
    given = plan(artifacts=artifacts_for(targets, precisions), learning=TAUGHT, **changes)
    work = work_on(given, directory)
    made = build(work, learn(work))
    assert set(made.files) == {artifact.file for artifact in made.order}
    assert [each.artifact for each in made.parity] == [artifact.file for artifact in made.order]
    return made


NEVER = Budget(-100.0)
"""A budget that nothing keeps."""


def test_halves_for_cpus_are_stored_and_computed_in_float(tmp_path: Path) -> None:
    made = built(tmp_path, ("cpu-x86", "cpu-arm"), ("fp32", "fp16"))
    half = made.files["cpu.fp16.onnx"]
    kinds = {node.op_type for node in onnx.load(str(half)).graph.node}
    assert "Cast" in kinds
    assert outputs_of(half, INPUTS, ENDS) == pytest.approx(outputs_of(made.files["fp32.onnx"], INPUTS, ENDS), abs=0.02)
    assert not any(artifact.literal for artifact in made.order)


def test_halves_for_gpus_compute_in_float16_and_are_checked_as_they_are_written(tmp_path: Path) -> None:
    made = built(tmp_path, ("cpu-x86", "rtx-sm89"), ("fp16", "fp32"))
    assert [artifact.file for artifact in made.order if artifact.literal] == ["fp16.onnx"]
    model = onnx.shape_inference.infer_shapes(onnx.load(str(made.files["fp16.onnx"])))
    inside = {value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert onnx.TensorProto.FLOAT16 in inside


def test_int8_that_breaks_the_budget_comes_last_and_is_left_out_for_tensorrt(tmp_path: Path) -> None:
    given = plan(
        artifacts=artifacts_for(("cpu-x86", "rtx-sm89"), ("int8", "fp16", "fp32")),
        learning=TAUGHT,
        budget=NEVER,
        quantizing=Quantizing(fall_back=False),
    )
    work = work_on(given, tmp_path)
    made = build(work, learn(work))
    assert [artifact.file for artifact in made.order] == ["fp16.onnx", "fp32.onnx", "cpu.u8s8.onnx"]
    assert "trt.s8.onnx" not in made.files
    cpu, tensorrt = work.warnings
    assert "cpu.u8s8.onnx loses" in cpu
    assert "nodes take a float artifact first" in cpu
    assert "trt.s8.onnx loses" in tensorrt
    assert "left out" in tensorrt


def test_where_there_is_nothing_else_even_what_breaks_the_budget_is_kept(tmp_path: Path) -> None:
    made = built(tmp_path, ("rtx-sm89",), ("int8",), budget=NEVER, quantizing=Quantizing(fall_back=False))
    assert [artifact.file for artifact in made.order] == ["trt.s8.onnx"]


def test_files_are_made_once_for_the_same_model(tmp_path: Path) -> None:
    for _ in range(2):
        work = work_on(
            plan(artifacts=artifacts_for(tuple(BOARDS), ("int8", "fp16", "fp32")), learning=TAUGHT), tmp_path
        )
        build(work, learn(work))
    assert stages_run(work) == []
