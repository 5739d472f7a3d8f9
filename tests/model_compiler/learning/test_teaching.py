"""What teachers say: the same whether remembered or asked on line, from torch or from an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import torch
from torch import nn

from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError
from model_compiler.learning.augment import PLAIN, Augment, View
from model_compiler.learning.features import last_linear
from model_compiler.learning.teaching import Asked, NetTeacher, OnnxTeacher, Teaching, recall, remember
from model_compiler.learning.train import VIEW_SEED, seeded
from model_compiler.replay import Ends

ENDS = Ends("image", ("logits",))
VIEWS = Augment(flip=True, shift=1, views=3)
COUNT = 300
"""More than one batch."""


class Classifier(nn.Module):  # type: ignore[misc]
    """Its layers are named in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        self.hidden = nn.Linear(2 * 6 * 6, 12)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.dropout(torch.relu(self.hidden(inputs.flatten(1)))))
        return outputs


@pytest.fixture
def net() -> nn.Module:
    with seeded(0):
        return Classifier()


@pytest.fixture
def samples() -> Arrays:
    rng = np.random.default_rng(0)
    return Arrays(rng.standard_normal((COUNT, 2, 6, 6)).astype(np.float32), rng.integers(0, 4, COUNT))


@pytest.fixture
def onnx_file(net: nn.Module, tmp_path: Path) -> Path:
    """The hidden and the last layer of `net` as the exporter would write them, without its seconds."""
    weights = [onnx.numpy_helper.from_array(values.numpy(), name) for name, values in net.state_dict().items()]
    nodes = [
        onnx.helper.make_node("Flatten", ["image"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "hidden.weight", "hidden.bias"], ["sums"], transB=1),
        onnx.helper.make_node("Relu", ["sums"], ["features"]),
        onnx.helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    inputs = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 2, 6, 6])
    outputs = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 4])
    graph = onnx.helper.make_graph(nodes, "main", [inputs], [outputs], weights)
    path = tmp_path / "teacher.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def seen(samples: Arrays, number: int) -> torch.Tensor:
    view = View(VIEWS, COUNT, number, seed=VIEW_SEED)
    return view.apply(torch.from_numpy(samples.inputs), np.arange(COUNT))


def truth(net: nn.Module, inputs: torch.Tensor) -> tuple[Floats, Floats]:
    assert isinstance(net, Classifier)
    with torch.inference_mode():
        features = torch.relu(net.hidden(inputs.flatten(1)))
        return net.head(features).numpy(), features.numpy()


def test_remembered_answers_are_the_teachers_own_to_every_view(net: nn.Module, samples: Arrays, tmp_path: Path) -> None:
    remember(NetTeacher(net, samples.inputs[:1]), samples, VIEWS, tmp_path)
    teaching = recall(tmp_path)
    assert net.training
    assert teaching.logits.shape == (3, COUNT, 4)
    assert isinstance(teaching.logits, np.memmap)
    rows = np.array([280, 3, 3, 77])
    for number in range(3):
        inputs = seen(samples, number)[rows]
        logits, features = truth(net, inputs)
        told = teaching.answers(inputs, rows, number)
        assert told.features is not None
        assert told.logits.dtype == told.features.dtype == torch.float32
        assert np.allclose(told.logits.numpy(), logits, atol=1e-6)
        assert np.allclose(told.features.numpy(), features, rtol=1e-3, atol=1e-6)
        asked = Asked(NetTeacher(net, samples.inputs[:1])).answers(inputs, rows, number)
        assert asked.features is not None
        assert torch.allclose(asked.logits, told.logits, atol=1e-6)
        assert torch.allclose(asked.features, told.features, rtol=1e-3, atol=1e-6)
    assert not np.allclose(teaching.logits[0], teaching.logits[1])


def test_an_onnx_file_tells_the_same_logits_and_no_features(
    net: nn.Module, samples: Arrays, onnx_file: Path, tmp_path: Path
) -> None:
    teacher = OnnxTeacher(onnx_file, ENDS)
    remember(teacher, samples, VIEWS, tmp_path / "kept")
    teaching = recall(tmp_path / "kept")
    assert teaching.features is None
    for number in range(3):
        assert np.allclose(teaching.logits[number], truth(net, seen(samples, number))[0], atol=1e-5)


def test_an_onnx_file_of_a_fixed_batch_is_asked_in_its_batches(
    net: nn.Module, samples: Arrays, onnx_file: Path
) -> None:
    model = onnx.load(onnx_file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, onnx_file)
    inputs = torch.from_numpy(samples.inputs[:21])
    teacher = OnnxTeacher(onnx_file, Ends("image", ("logits",), batch=8))
    assert np.allclose(teacher(inputs).logits, truth(net, inputs)[0], atol=1e-5)


def test_remembering_again_gives_the_same_bytes(net: nn.Module, samples: Arrays, tmp_path: Path) -> None:
    """Into a directory where another teacher's answers lay: nothing of them is left."""
    remember(NetTeacher(net, samples.inputs[:1]), samples, VIEWS, tmp_path / "once")
    remember(NetTeacher(net, samples.inputs[:1]), samples, PLAIN, tmp_path / "again")
    remember(NetTeacher(net, samples.inputs[:1]), samples, VIEWS, tmp_path / "again")
    files = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert files == ["augment.json", "features.npy", "logits.npy"]
    for file in files:
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    remember(NetTeacher(net, samples.inputs[:1], features=False), samples, VIEWS, tmp_path / "again")
    assert recall(tmp_path / "again").features is None


def test_progress_rises_to_1(net: nn.Module, samples: Arrays, tmp_path: Path) -> None:
    done: list[float] = []
    remember(NetTeacher(net, samples.inputs[:1]), samples, VIEWS, tmp_path, advance=done.append)
    assert done == sorted(done)
    assert done[-1] == 1


def test_features_too_large_for_half_precision_stay_finite(samples: Arrays, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 72), nn.Linear(72, 4))
    with torch.no_grad():
        net[1].weight.mul_(1e7)
        net[2].weight.mul_(1e-7)
    remember(NetTeacher(net, samples.inputs[:1]), samples, PLAIN, tmp_path)
    features = recall(tmp_path).features
    assert features is not None
    assert np.isfinite(features).all()


def test_the_last_linear_layer_is_the_one_that_runs_last(net: nn.Module, samples: Arrays) -> None:
    assert isinstance(net, Classifier)
    assert last_linear(net, samples.inputs[:1]) is net.head
    assert last_linear(nn.Sequential(nn.Conv2d(2, 4, 6), nn.Flatten()), samples.inputs[:1]) is None


def test_features_of_tokens_are_pooled() -> None:
    """A last linear layer that answers for every token: the mean of what it is given stands for the sample."""

    class Tokens(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(5, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.head(inputs).mean(dim=1)
            return outputs

    inputs = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    features = NetTeacher(Tokens(), inputs.numpy())(inputs).features
    assert features is not None
    assert torch.allclose(features, inputs.mean(dim=1), atol=1e-6)


def test_a_network_of_several_outputs_teaches_by_its_first(samples: Arrays) -> None:
    class Two(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(72, 4), nn.Linear(72, 2)

        def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            flat = inputs.flatten(1)
            return {"logits": self.first(flat), "else": self.second(flat)}

    inputs = torch.from_numpy(samples.inputs[:3])
    assert NetTeacher(Two(), samples.inputs[:1])(inputs).logits.shape == (3, 4)


def test_endless_views_are_not_remembered(net: nn.Module, samples: Arrays, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"on line, or set views"):
        remember(NetTeacher(net, samples.inputs[:1]), samples, Augment(flip=True, views=0), tmp_path)


@pytest.mark.parametrize("answer", [torch.zeros(1, 4, 4), torch.full((1, 4), float("nan"))])
def test_answers_that_are_no_logits_are_refused(answer: torch.Tensor, samples: Arrays, tmp_path: Path) -> None:
    class Odd(nn.Module):  # type: ignore[misc]
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return answer.expand(len(inputs), *answer.shape[1:])

    with pytest.raises(CompileError, match="name the logits as the first output"):
        remember(NetTeacher(Odd(), samples.inputs[:1]), samples, PLAIN, tmp_path)


def test_what_is_missing_or_damaged_is_not_recalled(net: nn.Module, samples: Arrays, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="asked again"):
        recall(tmp_path)
    remember(NetTeacher(net, samples.inputs[:1]), samples, PLAIN, tmp_path)
    (tmp_path / "logits.npy").write_bytes(b"no array")
    with pytest.raises(CompileError, match="asked again"):
        recall(tmp_path)


def test_answers_to_other_views_or_samples_do_not_fit(samples: Arrays) -> None:
    teaching = Teaching(np.zeros((3, COUNT, 4), np.float32), augment=VIEWS)
    teaching.fits(samples, VIEWS)
    with pytest.raises(CompileError, match="again for the student's views"):
        teaching.fits(samples, PLAIN)
    fewer = Arrays(samples.inputs[:9], samples.labels[:9])
    with pytest.raises(CompileError, match=r"3 views of 300 samples.*3 of 9"):
        teaching.fits(fewer, VIEWS)
