"""The report of a whole compilation: what was done is told with numbers, what was not with the reason."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from model_compiler.data.samples import Arrays, Data
from model_compiler.learning.train import Schedule
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle, report_of
from model_compiler.plan import Budget, Net, OnnxFile, Plan, Quantizing, Training, artifacts_for
from model_compiler.replay import outputs_of
from model_compiler.reporting import findings as told
from model_compiler.reporting.report import JSON_FILE, Report, read_report
from tests.model_compiler.quantizing.chains import convolutions, normal
from tests.model_compiler.quantizing.patient import ENDS
from tests.model_compiler.small import RIGHT, linear, net, plan, rows, unlabelled

pytestmark = pytest.mark.integration

TARGETS = ("cpu-x86", "cpu-arm", "jetson-orin-nano")
NOTHING = rows(0, 0)
NOISE = Data(NOTHING, NOTHING, NOTHING, unlabelled(rows(32, 0)), NOTHING, NOTHING)


def compiled(some: Plan, directory: Path) -> tuple[Packed, told.CompileReport, Report]:
    packed = compile_bundle(some, directory / some.reference)
    report = read_report(report_of(packed.directory) / JSON_FILE)
    return packed, report.findings, report


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> told.CompileReport:
    """Of an ONNX file, with noise in place of samples."""
    directory: Path = tmp_path_factory.mktemp("bare")
    file = OnnxFile(linear(directory / "m.onnx", {"logits": RIGHT}))
    return compiled(plan(student=file, data=NOISE, artifacts=artifacts_for(TARGETS, ("fp32",))), directory)[1]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, told.CompileReport, Report]:
    """Of a network that int8 ruins, which nothing may mend."""
    means = Quantizing(methods=("minmax", "percentile"), equalize=False, correct_bias=False, fall_back=False)
    return compiled(pictured(tmp_path_factory.mktemp("faulty"), 3000.0, means, 0.5), tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Packed, told.CompileReport, Report]:
    return compiled(pictured(tmp_path_factory.mktemp("sound"), 1.0, Quantizing(), 20.0), tmp_path_factory.mktemp("out"))


def pictured(directory: Path, loud: float, means: Quantizing, points: float) -> Plan:
    """int8 and fp32 for CPUs and a GPU, judged by the float form's own labels."""
    path = directory / "m.onnx"
    convolutions(path, layers=3, answer_bias=np.zeros(5), loud={2: loud})
    usual = outputs_of(path, normal(100, 3, 8, 8, seed=1), ENDS).mean(axis=0)
    convolutions(path, layers=3, answer_bias=-usual, loud={2: loud})

    def part(seed: int) -> Arrays:
        inputs = normal(100, 3, 8, 8, seed=seed)
        return Arrays(inputs, outputs_of(path, inputs, ENDS).argmax(axis=1))

    return plan(
        student=OnnxFile(path), ends=ENDS, data=Data(*map(part, range(6))), quantizing=means, budget=Budget(points),
        artifacts=artifacts_for(TARGETS, ("int8", "fp32")),
    )  # fmt: skip


def why(absent: Any) -> str:
    assert isinstance(absent, told.NotDone | told.NotMeasured)
    return absent.why


def test_without_samples_the_report_says_what_is_missing_and_measures_the_rest(bare: told.CompileReport) -> None:
    assert isinstance(bare.candidates, told.Candidates)
    (tried,) = bare.candidates.tried
    assert why(tried.score) == "There are no test samples."
    assert isinstance(tried.latency, told.Latency)
    assert (tried.file, tried.chosen, bare.candidates.role) == ("fp32.onnx", True, "fp32 form")
    assert "no int8 artifact" in why(bare.quantizing)
    assert "no cloud bundle" in why(bare.confidence)
    assert isinstance(bare.learning, told.NotDone)
    assert bare.head.warnings == ()


def test_every_target_is_told_what_it_takes_and_what_no_one_measured(bare: told.CompileReport) -> None:
    assert isinstance(bare.targets, told.Targets)
    assert [each.target for each in bare.targets.taken] == list(TARGETS)
    assert {each.artifact for each in bare.targets.taken} == {"fp32.onnx"}
    elsewhere = {"x86_64": "cpu-arm", "aarch64": "cpu-x86"}[platform.machine()]
    assert sorted(each.split()[2].rstrip(":") for each in bare.targets.not_measured) == [elsewhere, "jetson-orin-nano"]
    assert bare.targets.lint == ()


def test_the_export_is_told_with_its_opset_and_parity(bare: told.CompileReport) -> None:
    assert isinstance(bare.export, told.Export)
    (parity,) = bare.export.parity
    assert (bare.export.opset, bare.export.dynamic_batch) == (20, True)
    assert (parity.artifact, parity.rows, parity.largest_difference) == ("fp32.onnx", 32, 0.0)


def test_where_int8_keeps_the_budget_nothing_was_mended_and_it_is_said(
    sound: tuple[Packed, told.CompileReport, Report],
) -> None:
    findings = sound[1]
    quantizing = findings.quantizing
    assert isinstance(quantizing, told.Quantizing)
    assert len(quantizing.calibrations) == 6
    assert [each.chosen for each in quantizing.calibrations] == [True] + [False] * 5
    assert isinstance(quantizing.diagnosis, told.Diagnosis)
    assert (quantizing.diagnosis.sought, quantizing.diagnosis.findings) == (False, ())
    assert {"image", "a1", "a2", "a3"} <= {each.tensor for each in quantizing.diagnosis.layers}
    assert "int8 keeps the budget" in why(quantizing.fallback)
    assert "learn.qat" in why(quantizing.qat)
    assert "no int4" in why(quantizing.int4)
    assert (quantizing.calibration_rows, quantizing.validation_samples) == (100, 100)
    assert isinstance(findings.candidates, told.Candidates)
    latencies = {each.file: each.latency for each in findings.candidates.tried}
    assert "GPU" in why(latencies.pop("trt.s8.onnx"))
    assert all(isinstance(each, told.Latency) for each in latencies.values())
    assert isinstance(findings.targets, told.Targets)
    assert [each.artifact for each in findings.targets.lint] == ["trt.s8.onnx"]
    assert {each.target: each.artifact for each in findings.targets.taken} == {
        "cpu-x86": "cpu.u8s8.onnx", "cpu-arm": "cpu.u8s8.onnx", "jetson-orin-nano": "fp32.onnx",
    }  # fmt: skip


def test_int8_that_breaks_its_budget_comes_last_and_is_warned_of(
    faulty: tuple[Packed, told.CompileReport, Report],
) -> None:
    packed, findings, report = faulty
    assert [each.file for each in packed.manifest.artifacts] == ["fp32.onnx", "cpu.u8s8.onnx"]
    assert [warning.split()[0] for warning in findings.head.warnings] == ["cpu.u8s8.onnx", "trt.s8.onnx"]
    assert all("points on validation samples, and 0.50 may be lost" in each for each in findings.head.warnings)
    quantizing = findings.quantizing
    assert isinstance(quantizing, told.Quantizing)
    assert "does not ask for it" in why(quantizing.bias)
    assert "does not ask for it" in why(quantizing.fallback)
    assert {(each.artifact, each.promise): (each.verdict, each.chosen) for each in report.outcomes} == {
        ("fp32.onnx", "drop"): ("kept", True), ("cpu.u8s8.onnx", "drop"): ("broken", False),
    }  # fmt: skip


def test_a_cloud_bundle_without_samples_to_certify_on_is_told_of_twice(tmp_path: Path) -> None:
    file = OnnxFile(linear(tmp_path / "m.onnx", {"logits": RIGHT}))
    cloud = compile_bundle(plan(name="cloud", tier="cloud", student=file), tmp_path / "cloud", report=False)
    certain = msgspec.structs.replace(plan().data, threshold=NOTHING)
    findings = compiled(plan(student=file, data=certain, cloud=cloud), tmp_path)[1]
    assert "warnings say why" in why(findings.confidence)
    (warning,) = findings.head.warnings
    assert "`threshold`" in warning
    assert isinstance(findings.candidates, told.Candidates)
    assert findings.candidates.role == "teacher"


def test_a_network_that_learned_from_labels_alone_is_told_as_trained(tmp_path: Path) -> None:
    alone = Net("small.net", net, training=Training(Schedule(3, 1e-2)))
    learning = compiled(plan(student=alone), tmp_path)[1].learning
    assert isinstance(learning, told.Learning)
    assert learning.training == told.Training("plain", 3, 256)


def test_where_only_the_file_for_tensorrt_was_mended_it_is_told_of_by_its_name(tmp_path: Path) -> None:
    """TensorRT's int8 reads the faulty channel rounded to nothing, and only that file breaks the budget."""
    some = pictured(tmp_path, 3000.0, Quantizing(methods=("minmax",), equalize=False, correct_bias=False), 0.5)
    only = msgspec.structs.replace(some, artifacts=artifacts_for(("jetson-orin-nano",), ("int8", "fp32")))
    quantizing = compiled(only, tmp_path)[1].quantizing
    assert isinstance(quantizing, told.Quantizing)
    assert isinstance(quantizing.fallback, told.Fallback)
    assert quantizing.fallback.told.startswith("trt.s8.onnx: ")
