"""What was compiled, in short: what is broken is said, what one artifact keeps is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from model_compiler.cli import show
from model_compiler.confidence import Promise
from model_compiler.data.samples import Arrays, Data
from model_compiler.pack import Packed, read_measurements
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import Budget, OnnxFile, artifacts_for
from model_compiler.summary import print_table, summary_of
from tests.model_compiler.quantizing.chains import Array
from tests.model_compiler.small import NUMBERS, RIGHT, data, linear, plan

pytestmark = pytest.mark.integration


def compiled(directory: Path, weight: Array = RIGHT, *, report: bool = True, **changes: Any) -> Packed:
    file = OnnxFile(linear(directory / "m.onnx", {"logits": weight}))
    some = plan(student=file, **changes)
    return compile_bundle(some, directory / some.reference, report=report)


def test_without_a_report_there_is_the_bundle_and_what_was_measured(tmp_path: Path) -> None:
    packed = compiled(tmp_path, report=False, budget=Budget(max_bytes=1))
    found = summary_of(packed)
    assert (found.bundle, found.digest, found.directory) == ("largest@1", packed.digest, str(packed.directory))
    assert found.measurements == read_measurements(packed)
    assert (found.report, found.warnings, found.broken) == ("", (), ())


def test_what_is_kept_is_not_complained_of(tmp_path: Path) -> None:
    found = summary_of(compiled(tmp_path, budget=Budget(0.0, max_bytes=10_000, max_latency_ms=10_000)))
    assert found.report == str(tmp_path / "largest@1.report" / "report.html")
    assert (found.broken, found.warnings) == ((), ())


def test_every_promise_that_the_preferred_artifact_breaks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = compiled(tmp_path, budget=Budget(0.0, max_bytes=100, min_speed_up=1e6))
    size = f"{packed.first_artifact.stat().st_size:,}"
    found = summary_of(packed)
    assert [each.partition(";")[0] for each in found.broken] == ["no artifact keeps the budget"] * 2
    assert found.broken[0].startswith("no artifact keeps the budget; fp32.onnx: speed-up ")
    assert found.broken[1] == f"no artifact keeps the budget; fp32.onnx: bytes {size} where 100 was promised."
    with pytest.raises(typer.Exit) as exited:
        show((packed,), json=False)
    assert exited.value.exit_code == 1
    assert f"foothill compile: largest@1: {found.broken[1]}" in capsys.readouterr().err


def test_a_budget_that_one_artifact_keeps_is_kept(tmp_path: Path) -> None:
    """int4 keeps the bytes, and the points; the float form the points alone."""
    wide = np.zeros((512, 3), np.float32)
    wide[:NUMBERS] = RIGHT
    parts = []
    for part in (data().train, data().ranges, data().validation, data().fit, data().threshold, data().test):
        inputs = np.zeros((len(part), 512), np.float32)
        inputs[:, :NUMBERS] = part.batch(np.arange(len(part)))
        parts.append(Arrays(inputs, part.labels))
    artifacts = artifacts_for(("cpu-x86",), ("fp32", "int4"))
    found = summary_of(
        compiled(tmp_path, wide, data=Data(*parts), artifacts=artifacts, budget=Budget(5.0, max_bytes=4000))
    )
    sizes = {name: each.bytes for name, each in found.measurements.artifacts.items()}
    assert sizes["cpu.int4.onnx"] < 4000 < sizes["fp32.onnx"]
    assert found.broken == ()


def test_a_promise_that_is_not_certified_is_told(tmp_path: Path) -> None:
    cloud = compiled(tmp_path / "..", report=False, name="cloud", tier="cloud")
    noisy = RIGHT + 4 * np.random.default_rng(0).standard_normal(RIGHT.shape)
    found = summary_of(compiled(tmp_path, noisy, cloud=cloud, promise=Promise(0.001, 0.01), budget=Budget(100.0)))
    assert found.broken == (
        "fp32.onnx: the promise is not certified, so that every request escalates; the warnings say why.",
    )
    assert [each.partition(" ")[0] for each in found.warnings] == ["fp32.onnx:"]


def test_the_table_leaves_open_what_was_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = data(0, 0)
    told = Data(nothing.train, nothing.ranges, nothing.validation, data(16).fit, nothing.threshold, nothing.test)
    summary = summary_of(compiled(tmp_path, data=told, report=False))
    print_table([summary])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "fp32.onnx" in line)
    assert f"digest of largest@1: {summary.digest}" in lines
    measured = summary.measurements.artifacts["fp32.onnx"]
    assert row.split() == ["largest@1", "fp32.onnx", f"{measured.bytes:,}", f"{measured.latency_ms:.3f}"]
