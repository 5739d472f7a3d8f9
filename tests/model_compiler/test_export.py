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
from model_compiler.export import MAX_IR_VERSION, OPSET, check_parity, export_onnx, predict
from model_compiler.learning.train import seeded
from model_compiler.replay import Ends, outputs_of

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
        assert got == pytest.approx(predict(net, inputs[:rows]), abs=1e-4)


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


def test_parity_passes_for_the_network_itself(artifact: Path, net: torch.nn.Module, inputs: Floats) -> None:
    check_parity(artifact, ENDS, inputs, predict(net, inputs), precision="fp32")


def test_parity_refuses_another_networks_outputs(artifact: Path, net: torch.nn.Module, inputs: Floats) -> None:
    expected = predict(net, inputs)
    with pytest.raises(CompileError, match="differs from the torch network by"):
        check_parity(artifact, ENDS, inputs, expected + 0.01, precision="fp32")
    with pytest.raises(CompileError, match="agrees with the torch network on"):
        check_parity(artifact, ENDS, inputs, -expected, precision="int8")
    with pytest.raises(CompileError, match="lost the model"):
        check_parity(artifact, ENDS, inputs, expected[:, :5], precision="fp32")
