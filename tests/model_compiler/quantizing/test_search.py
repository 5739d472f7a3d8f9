"""The best int8 files: every calibration is tried and judged, the chosen one makes all files and is kept for later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError
from model_compiler.metrics import Metric
from model_compiler.plan import Quantizing
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.search import CPU, TENSORRT, Calibrated, Form, Request, Search, search
from model_compiler.quantizing.tensorrt_lint import lint
from model_compiler.replay import outputs_of
from tests.model_compiler.quantizing.chains import convolutions, normal
from tests.model_compiler.quantizing.patient import ENDS, METRIC

PLAIN = Quantizing(methods=("minmax",), equalize=False, correct_bias=False)
CALIBRATION = Arrays(normal(32, 3, 8, 8, seed=8), np.zeros(32, np.int64))
LOUD = {2: 3000.0}
"""Channel 0 behind the second convolution is so many times too large."""


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("even") / "fp32.onnx")


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("loud") / "fp32.onnx", LOUD)


def drawn(path: Path, channels: Mapping[int, float] | None = None) -> Path:
    """Three convolutions, their usual answer taken off."""
    convolutions(path, layers=3, answer_bias=np.zeros(5), loud=channels)
    usual = outputs_of(path, normal(200, 3, 8, 8, seed=7), ENDS).mean(axis=0)
    return convolutions(path, layers=3, answer_bias=-usual, loud=channels)


def request_for(fp32: Path, metric: Metric = METRIC, rows: int = 200) -> Request:
    """Judged by the float model's own labels: whatever is lost, rounding has lost."""
    inputs = normal(rows, 3, 8, 8, seed=7)
    return Request(CALIBRATION, Arrays(inputs, outputs_of(fp32, inputs, ENDS).argmax(axis=1)), ENDS, metric)


def searched(fp32: Path, out: Path, means: Quantizing, *forms: Form, metric: Metric = METRIC) -> Search:
    out.mkdir(exist_ok=True)
    return search(fp32, out, forms or (CPU,), request_for(fp32, metric), means)


def test_every_calibration_is_tried_and_the_best_makes_every_file(loud: Path, tmp_path: Path) -> None:
    means = msgspec.structs.replace(PLAIN, methods=("entropy", "minmax", "percentile"), equalize=True)
    found = searched(loud, tmp_path, means, CPU, TENSORRT)
    assert {(each.method, each.equalized) for each in found.tried} == {
        (method, equalized) for method in means.methods for equalized in (False, True)
    }
    scores = [each.score for each in found.tried]
    assert scores == sorted(scores, reverse=True)
    assert found.float_score == 1.0
    chosen = Calibrated.load(tmp_path)
    assert chosen.table.method == found.tried[0].method
    assert (found.calibration_rows, found.tensors) == (32, tuple(chosen.observations.tensors))
    for written, form in zip(found.written, (CPU, TENSORRT), strict=True):
        form.quantize(chosen.base, tmp_path / "again.onnx", chosen.table)
        assert (tmp_path / form.file).read_bytes() == (tmp_path / "again.onnx").read_bytes()
        assert written.score == written.first_score == request_for(loud).score(tmp_path / form.file, form)
    assert found.written[0].score == found.tried[0].score
    assert lint(onnx.load(str(tmp_path / TENSORRT.file))) == []


def test_a_channel_that_is_too_loud_is_evened_out_where_that_may_be_tried(loud: Path, tmp_path: Path) -> None:
    without, with_it = (
        searched(loud, tmp_path / str(equal), msgspec.structs.replace(PLAIN, equalize=equal)) for equal in (False, True)
    )
    assert without.equalized == ()
    assert not without.tried[0].equalized
    assert {(each.first, each.second) for each in with_it.equalized} >= {("c2", "c3")}
    assert with_it.tried[0].equalized
    assert without.written[0].score < 0.7 < 0.9 < with_it.written[0].score


def test_of_equals_the_first_named_wins_and_the_model_stays_as_it_was(even: Path, tmp_path: Path) -> None:
    means = msgspec.structs.replace(PLAIN, methods=("percentile", "minmax"), equalize=True)
    found = searched(even, tmp_path, means, metric=lambda outputs, labels: 0.5)
    assert [(each.method, each.equalized) for each in found.tried] == [
        ("percentile", False), ("minmax", False), ("percentile", True), ("minmax", True),
    ]  # fmt: skip


def test_biases_are_corrected_where_that_costs_nothing(even: Path, tmp_path: Path) -> None:
    plain = searched(even, tmp_path / "plain", PLAIN)
    moved = searched(even, tmp_path / "moved", msgspec.structs.replace(PLAIN, correct_bias=True))
    assert plain.written[0].corrected == 0
    assert moved.written[0].corrected == 4
    assert moved.written[0].score >= moved.written[0].first_score == plain.written[0].score
    request = request_for(even)
    exact = outputs_of(even, request.validation, ENDS)
    before, after = (
        np.abs((answers(tmp_path / name, request) - exact).mean(axis=0)).max() for name in ("plain", "moved")
    )
    assert after < 0.7 * before
    assert {each.name for each in (tmp_path / "moved").iterdir()} == {
        each.name for each in (tmp_path / "plain").iterdir()
    }


def answers(directory: Path, request: Request) -> Floats:
    return outputs_of(directory / CPU.file, request.validation, ENDS)


def test_a_correction_that_costs_is_taken_back(even: Path, tmp_path: Path) -> None:
    """By a metric for which nothing is better than the file before it."""
    searched(even, tmp_path / "plain", PLAIN)
    wanted = answers(tmp_path / "plain", request_for(even))

    def likeness(outputs: Mapping[str, Floats], labels: Any) -> float:
        return float((outputs["logits"] == wanted).mean())

    found = searched(even, tmp_path / "kept", msgspec.structs.replace(PLAIN, correct_bias=True), metric=likeness)
    assert (found.written[0].corrected, found.written[0].score) == (0, 1.0)
    assert (tmp_path / "kept" / CPU.file).read_bytes() == (tmp_path / "plain" / CPU.file).read_bytes()


@pytest.mark.parametrize("part", ["calibration", "validation"])
def test_without_samples_to_calibrate_or_to_judge_by_there_is_no_int8(even: Path, tmp_path: Path, part: str) -> None:
    none = Arrays(normal(0, 3, 8, 8, seed=0), np.zeros(0, np.int64))
    request = msgspec.structs.replace(request_for(even), **{part: none})
    with pytest.raises(CompileError, match="int8 needs calibration and validation samples"):
        search(even, tmp_path, (CPU,), request, PLAIN)


def test_a_search_tells_how_far_it_is(even: Path, tmp_path: Path) -> None:
    told: list[float] = []
    means = Quantizing(methods=("minmax", "percentile"))
    search(even, tmp_path, (CPU, TENSORRT), request_for(even), means, advance=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert sum(0 < each < 0.6 for each in told) > 3


def test_what_was_calibrated_makes_the_same_files_later(even: Path, tmp_path: Path) -> None:
    searched(even, tmp_path, PLAIN)
    kept = Calibrated.load(tmp_path)
    kept.save(tmp_path / "..")
    again = Calibrated.load(tmp_path / "..")
    assert again.table == kept.table
    quantize_cpu(again.base, tmp_path / "later.onnx", again.table)
    assert (tmp_path / "later.onnx").read_bytes() == (tmp_path / CPU.file).read_bytes()


def test_a_model_of_any_size_is_equalized_on_the_size_of_its_samples(even: Path, tmp_path: Path) -> None:
    opened = onnx.load(str(even))
    for side in opened.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "side"
    onnx.save(opened, str(tmp_path / "open.onnx"))
    found = searched(tmp_path / "open.onnx", tmp_path, Quantizing(methods=("minmax",)), CPU)
    assert found.equalized
