"""An int8 file that breaks its budget is written again with layers in float, from what the search left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from model_compiler.data.samples import Arrays
from model_compiler.plan import Quantizing
from model_compiler.quantizing.fallback import Budget
from model_compiler.quantizing.mixed import Mixed, mix
from model_compiler.quantizing.search import BASE_FILE, CPU, TENSORRT, Form, Request, Search, search
from model_compiler.quantizing.tensorrt_lint import lint
from model_compiler.replay import outputs_of
from tests.model_compiler.quantizing.chains import Array, convolutions, normal
from tests.model_compiler.quantizing.patient import ENDS, METRIC

MEANS = Quantizing(methods=("minmax",), equalize=False, correct_bias=True)


class Searched(msgspec.Struct):
    directory: Path
    search: Search
    request: Request

    def mixed(self, out: Path, budget: Budget, form: Form = CPU, told: list[float] | None = None) -> Mixed:
        written = next(each for each in self.search.written if each.file == form.file)
        advance = (told if told is not None else []).append
        return mix(self.directory, out, form, written, self.request, budget, advance=advance)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return searched(tmp_path_factory.mktemp("faulty"), 300.0)


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """With less of a fault, so that corrected biases help."""
    return searched(tmp_path_factory.mktemp("corrected"), 100.0)


def searched(directory: Path, loud: float) -> Searched:
    """Channel 0 behind the second convolution is so many times too large: the third cannot read it in int8."""
    fp32, inputs, channels = directory / "fp32.onnx", normal(200, 3, 8, 8, seed=7), {2: loud}
    convolutions(fp32, layers=3, answer_bias=np.zeros(5), loud=channels)
    convolutions(fp32, layers=3, answer_bias=-outputs_of(fp32, inputs, ENDS).mean(axis=0), loud=channels)
    validation = Arrays(inputs, outputs_of(fp32, inputs, ENDS).argmax(axis=1))
    calibration = Arrays(normal(32, 3, 8, 8, seed=8), np.zeros(32, np.int64))
    request = Request(calibration, validation, ENDS, METRIC)
    return Searched(directory, search(fp32, directory, (CPU, TENSORRT), request, MEANS), request)


def biases(path: Path) -> Mapping[str, Array]:
    """The biases of convolutions in int8, in float."""
    model = onnx.load(str(path))
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    writers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        holder = writers.get(node.input[2]) if node.op_type == "Conv" and len(node.input) > 2 else None
        if holder is not None and holder.op_type == "DequantizeLinear":
            found[node.name] = constants[holder.input[0]] * constants[holder.input[1]].astype(np.float64)
    return found


@pytest.mark.parametrize("form", [CPU, TENSORRT], ids=["cpu", "tensorrt"])
def test_the_faulty_layer_alone_stays_in_float_and_the_budget_holds(
    faulty: Searched, tmp_path: Path, form: Form
) -> None:
    told: list[float] = []
    before = next(each.score for each in faulty.search.written if each.file == form.file)
    found = faulty.mixed(tmp_path, Budget(8.0, margin=0.0), form, told)
    assert (found.file, found.fallback.keep, found.fallback.holds) == (form.file, {"c3": "fp16"}, True)
    assert before < 0.8 < 0.92 <= found.score
    assert found.score >= found.fallback.score
    assert found.score == faulty.request.score(tmp_path / form.file, form)
    assert found.diagnosis.findings[0].node == "c2"
    assert found.diagnosis.int8_score == before
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [form.file]
    if form is TENSORRT:
        assert lint(onnx.load(str(tmp_path / form.file))) == []
        assert {each.cost_ms for each in found.fallback.costs} == {None}


def test_corrected_biases_go_along_into_every_mix(corrected: Searched, tmp_path: Path) -> None:
    """Within a budget that int8 alone keeps: the file is then the very one that the search left."""
    assert corrected.search.written[0].corrected > 0
    found = corrected.mixed(tmp_path, Budget(100.0))
    assert found.fallback.keep == {}
    assert found.score == found.fallback.int8_score == corrected.search.written[0].score
    before, after = biases(corrected.directory / CPU.file), biases(tmp_path / CPU.file)
    assert before.keys() == after.keys() == {"c1", "c2", "c3"}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_layers_that_stay_int8_keep_their_corrected_biases(corrected: Searched, tmp_path: Path) -> None:
    """Or are corrected anew, where that is better: by less than the first time."""
    found = corrected.mixed(tmp_path, Budget(8.0, margin=0.0))
    assert "c3" in found.fallback.keep
    before, after = biases(corrected.directory / CPU.file), biases(tmp_path / CPU.file)
    assert "c3" not in after
    base = onnx.load(str(corrected.directory / BASE_FILE))
    exact = {each.name: onnx.numpy_helper.to_array(each) for each in base.graph.initializer}["b1"]
    moved = np.abs(before["c1"] - exact).max()
    assert moved > 0
    assert np.abs(after["c1"] - before["c1"]).max() < 0.5 * moved


def test_where_no_mix_holds_the_most_accurate_within_its_bytes_is_written(faulty: Searched, tmp_path: Path) -> None:
    found = faulty.mixed(tmp_path, Budget(8.0, margin=0.0, max_bytes=1))
    assert (found.fallback.keep, found.fallback.holds) == ({}, False)
    assert found.score == faulty.search.written[0].score
