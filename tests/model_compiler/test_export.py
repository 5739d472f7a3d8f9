"""Export: a small, portable file that says what the network says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model_compiler.data.samples import Floats
from model_compiler.digits import nets
from model_compiler.errors import CompileError
from model_compiler.export import MAX_IR_VERSION, OPSET, check_same, export_onnx, import_onnx, net_outputs, parity
from model_compiler.learning.train import seeded
from model_compiler.replay import Ends, all_outputs_of, outputs_of

pytestmark = pytest.mark.integration

ENDS = Ends("image", ("logits",))


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    with seeded(0):
        return nets.student().eval()


@pytest.fixture(scope="module")
def inputs() -> Floats:
    return np.random.default_rng(0).standard_normal((33, 1, 32, 32), np.float32)


@pytest.fixture(scope="module")
def artifact(net: torch.nn.Module, inputs: Floats, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("export") / "fp32.onnx"
    export_onnx(net, inputs[:2], path, ENDS)
    return path


def test_the_artifact_answers_as_the_network_for_any_batch(
    artifact: Path, net: torch.nn.Module, inputs: Floats
) -> None:
    for rows in (1, 2, 33):
        got = outputs_of(artifact, inputs[:rows], ENDS)
        assert got == pytest.approx(net_outputs(net, inputs[:rows], ENDS)["logits"], abs=1e-4)


def test_the_artifact_loads_in_the_oldest_runtime_of_the_nodes(artifact: Path) -> None:
    model = onnx.load(str(artifact))
    assert model.ir_version <= MAX_IR_VERSION
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_the_artifact_does_not_tell_where_it_was_built(artifact: Path) -> None:
    data = artifact.read_bytes()
    assert b"site-packages" not in data
    assert b"torch" not in data
    assert str(Path(__file__).parents[2]).encode() not in data


def test_exporting_again_gives_the_same_bytes(artifact: Path, net: torch.nn.Module, inputs: Floats) -> None:
    again = artifact.with_name("again.onnx")
    export_onnx(net, inputs[5:8], again, ENDS)
    assert again.read_bytes() == artifact.read_bytes()


def test_a_file_that_says_something_else_than_its_network_is_refused(
    artifact: Path, net: torch.nn.Module, inputs: Floats
) -> None:
    got, wanted = all_outputs_of(artifact, inputs, ENDS), net_outputs(net, inputs, ENDS)
    check_same("fp32.onnx", got, wanted)
    with pytest.raises(CompileError, match=r"fp32.onnx differs from its model by 0\.01"):
        check_same("fp32.onnx", got, {"logits": wanted["logits"] + 0.01})


def test_parity_tells_the_largest_difference_and_the_share_of_equal_labels() -> None:
    wanted = {"logits": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)}
    got = {"logits": np.array([[1.5, 0.0], [1.0, 0.5]], np.float32)}
    found = parity("cpu.u8s8.onnx", got, wanted, classifies="logits")
    assert (found.rows, found.largest_difference, found.agreement) == (2, 1.0, 0.5)
    assert parity("cpu.u8s8.onnx", got, wanted).agreement is None


@pytest.mark.parametrize("lost", [np.zeros((2, 3), np.float32), np.array([[np.nan, 0.0], [0.0, 1.0]], np.float32)])
def test_another_shape_or_a_number_that_is_none_means_the_model_was_lost(lost: Floats) -> None:
    with pytest.raises(CompileError, match="the model was lost"):
        parity("a.onnx", {"logits": lost}, {"logits": np.zeros((2, 2), np.float32)})


def test_a_network_that_torch_cannot_export_is_refused_with_advice(tmp_path: Path) -> None:
    class Moody(torch.nn.Module):  # type: ignore[misc]
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs if float(inputs.sum()) > 0 else -inputs

    with pytest.raises(CompileError, match=r"cannot export this network.*control flow"):
        export_onnx(Moody().eval(), np.zeros((2, 4), np.float32), tmp_path / "moody.onnx", ENDS)


def test_a_foreign_file_becomes_one_of_ours_that_says_the_same(artifact: Path, inputs: Floats, tmp_path: Path) -> None:
    model = onnx.load(str(artifact))
    model.producer_name, model.doc_string = "someone", "/home/someone/model.py"
    onnx.save(model, str(tmp_path / "given.onnx"))
    import_onnx(tmp_path / "given.onnx", tmp_path / "ours.onnx", ENDS, inputs[:4])
    assert b"someone" not in (tmp_path / "ours.onnx").read_bytes()
    assert np.array_equal(
        outputs_of(tmp_path / "ours.onnx", inputs, ENDS), outputs_of(tmp_path / "given.onnx", inputs, ENDS)
    )
