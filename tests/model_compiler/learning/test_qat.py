"""Quantization-aware training: it rounds as the int8 files do, wins back what they lose, and keeps the net's form."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from contracts.manifest import Preprocess
from model_compiler.data.samples import Arrays, Floats, to_samples
from model_compiler.digits import camera, splits
from model_compiler.digits.splits import Digits
from model_compiler.errors import CompileError
from model_compiler.export import export_onnx
from model_compiler.learning import qat
from model_compiler.learning.qat import Scheme, fine_tune
from model_compiler.learning.train import Schedule, seeded, train
from model_compiler.metrics import accuracy, score
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import table_of
from model_compiler.replay import Ends, outputs_of

ENDS = Ends("image", ("logits",))
WRITERS = {"u8s8": quantize_cpu, "s8s8": quantize_tensorrt}
SCHEMES: tuple[Scheme, ...] = ("u8s8", "s8s8")
GREY = Preprocess(width=32, height=32, colour="grey", scale=1 / 255, mean=(0.25,), std=(0.25,))
SHORT = Schedule(epochs=2, peak=1e-2, batch=32)


def quadrants(count: int, seed: int) -> Arrays:
    """Noise, brighter in the quadrant that is the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    inputs = rng.standard_normal((count, 1, 16, 16)).astype(np.float32)
    for row, label in enumerate(labels):
        down, across = 8 * (label // 2), 8 * (label % 2)
        inputs[row, 0, down : down + 8, across : across + 8] += 1
    return Arrays(inputs, labels)


class Residual(nn.Module):  # type: ignore[misc]
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)
        self.unused = nn.Linear(2, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = inputs + self.inner(inputs)
        return outputs


class Gate(nn.Module):  # type: ignore[misc]
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        pool, squeeze, excite = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)
        self.gate = nn.Sequential(pool, squeeze, nn.SiLU(), excite, nn.Sigmoid())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = inputs * self.gate(inputs)
        return outputs


def convolve(
    channels_in: int, channels_out: int, kernel: int, act: type[nn.Module], *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.3), act()]


def swish_net() -> nn.Module:
    """Depthwise, squeeze-excite, swish, a linear bottleneck on a residual, dropout."""
    return nn.Sequential(
        *convolve(1, 16, 3, nn.SiLU, stride=2),
        Residual(
            *convolve(16, 32, 1, nn.SiLU),
            *convolve(32, 32, 3, nn.SiLU, groups=32),
            Gate(32),
            *convolve(32, 16, 1, nn.Identity),
        ),
        *convolve(16, 32, 3, nn.SiLU, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(32, 4),
    )


def relu_net() -> nn.Module:
    """Convolutions, in place too, a residual of two rectified sides, pooling, two linear layers."""
    return nn.Sequential(
        *convolve(1, 16, 3, nn.ReLU, stride=2),
        Residual(*convolve(16, 16, 3, nn.ReLU), *convolve(16, 16, 3, nn.ReLU, groups=16)),
        nn.MaxPool2d(2),
        *convolve(16, 32, 3, nn.ReLU6, stride=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(32 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


class Pyramid(nn.Module):  # type: ignore[misc]
    """Two scales joined, a convolution that answers, hard swish, a batch norm in front of what it normalises for."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*convolve(1, 16, 3, nn.ReLU, stride=2))
        self.coarse = nn.Sequential(*convolve(16, 32, 3, nn.Hardswish, stride=2))
        self.joined = nn.Sequential(nn.BatchNorm2d(48), nn.ReLU(), *convolve(48, 16, 1, nn.LeakyReLU))
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        fine = self.fine(inputs)
        coarse = nn.functional.interpolate(self.coarse(fine), scale_factor=2.0)
        outputs: torch.Tensor = self.head(self.joined(torch.cat([fine, coarse], 1))).amax((2, 3))
        return outputs


class Attention(nn.Module):  # type: ignore[misc]
    """A transformer's layer on 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Conv2d(1, 16, 4, 4), nn.LayerNorm(16)
        self.heads = nn.Linear(16, 48)
        self.inner = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.answer = nn.Linear(16, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(inputs).flatten(2).transpose(1, 2)
        query, key, value = self.heads(self.norm(tokens)).chunk(3, -1)
        tokens = tokens + torch.softmax(query @ key.transpose(1, 2) / 4, -1) @ value
        outputs: torch.Tensor = self.answer((tokens + self.inner(self.norm(tokens))).mean(1))
        return outputs


NETS = {"swish": swish_net, "relu": relu_net, "pyramid": Pyramid, "attention": Attention}


def fresh(name: str) -> nn.Module:
    with seeded(0):
        return NETS[name]()


@cache
def trained(name: str) -> nn.Module:
    net = fresh(name)
    train(net, quadrants(256, 0), SHORT, seed=0)
    return net


def digest(net: nn.Module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in net.state_dict().values())).hexdigest()


def quantized(net: nn.Module, scheme: Scheme, ranges: Arrays, work: Path) -> tuple[Path, Path]:
    """The float and the int8 file of `net`."""
    fp32, int8 = work / "fp32.onnx", work / f"{scheme}.onnx"
    export_onnx(net.eval(), ranges.inputs[:2], fp32, ENDS)
    WRITERS[scheme](fp32, int8, table_of(observe(fp32, ranges, ENDS), "minmax"))
    return fp32, int8


def rounded_outputs(net: nn.Module, scheme: Scheme, ranges: Arrays, inputs: Floats) -> Floats:
    """What training makes of `inputs` once its ranges are those of `ranges` and its batch norms have settled."""
    from torchao.quantization.pt2e import disable_fake_quant, disable_observer, enable_fake_quant

    rounded = qat._rounded(copy.deepcopy(net), inputs[:2], scheme)
    rounded.settle()
    with torch.inference_mode():
        rounded.apply(disable_fake_quant)
        rounded(torch.from_numpy(ranges.inputs))
        rounded.apply(disable_observer)
        rounded.apply(enable_fake_quant)
        return np.asarray(rounded(torch.from_numpy(inputs)))


def without_dropout(net: nn.Module) -> nn.Module:
    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return net


@pytest.mark.integration
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETS)
def test_training_rounds_as_the_int8_file_does(name: str, scheme: Scheme, tmp_path: Path) -> None:
    net, ranges, test = without_dropout(trained(name)), quadrants(64, 1), quadrants(256, 2)
    fp32, int8 = quantized(net, scheme, ranges, tmp_path)
    # ONNX Runtime's own rewrites would round TensorRT's file further.
    wanted = outputs_of(int8, test.inputs, ENDS, literal=scheme == "s8s8")
    exact = outputs_of(fp32, test.inputs, ENDS)
    got = rounded_outputs(net, scheme, ranges, test.inputs)
    lost_by_rounding = np.abs(wanted - exact).mean()
    assert lost_by_rounding > 1e-3
    assert np.abs(got - wanted).mean() < 0.3 * lost_by_rounding


AGAIN = Schedule(epochs=6, peak=5e-3, batch=64)


class Hostile(NamedTuple):
    """A net one of whose channels in each layer is so large that a scale for all leaves little for the others.

    `control` has trained on, in float.
    """

    net: nn.Module
    control: nn.Module
    train: Arrays
    ranges: Arrays
    test: Arrays


def shoot(digits: Digits, draws: int, seed: int) -> Arrays:
    repeated = digits.take(np.tile(np.arange(len(digits)), draws))
    return to_samples(camera.shoot(repeated.pictures, np.random.default_rng(seed)), repeated.labels, GREY)


def separable(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    return [
        *convolve(channels_in, channels_in, 3, nn.ReLU, stride=stride, groups=channels_in),
        *convolve(channels_in, channels_out, 1, nn.ReLU),
    ]


def spoil(net: nn.Sequential, factor: float) -> None:
    """Makes channel 0 of every layer `factor` times as large, and what reads it as much smaller: the same function."""
    layers = list(net)
    for index, norm in enumerate(layers):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        reader = next(each for each in layers[index + 1 :] if isinstance(each, nn.Conv2d | nn.Linear))
        norm.weight.data[0] *= factor
        norm.bias.data[0] *= factor
        if isinstance(reader, nn.Linear):
            reader.weight.data[:, : reader.in_features // norm.num_features] /= factor
        elif reader.groups > 1:
            reader.weight.data[0] /= factor
        else:
            reader.weight.data[:, 0] /= factor


@pytest.fixture(scope="module")
def hostile() -> Hostile:
    parts = splits.split(splits.load())
    learned = shoot(parts["train"], 3, seed=1)
    with seeded(0):
        head = [nn.Flatten(), nn.Linear(24 * 16, 10)]
        stem = convolve(1, 12, 5, nn.ReLU, stride=4)
        net = nn.Sequential(*stem, *separable(12, 16, 1), *separable(16, 24, 2), *head)
    train(net, learned, Schedule(epochs=8, peak=1e-2, batch=64), seed=0)
    spoil(net, 30)
    control = copy.deepcopy(net)
    train(control, learned, AGAIN, seed=0)
    return Hostile(net, control, learned, shoot(parts["fit"], 1, seed=2), shoot(parts["test"], 3, seed=5))


@pytest.mark.integration
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_wins_back_most_of_what_int8_loses_and_more_training_alone_does_not(
    hostile: Hostile, scheme: Scheme, tmp_path: Path
) -> None:
    def points(net: nn.Module) -> tuple[float, float]:
        files = quantized(net, scheme, hostile.ranges, tmp_path)
        fp32, int8 = (100 * score(each, hostile.test, ENDS, accuracy("logits")) for each in files)
        return fp32, int8

    result = fine_tune(hostile.net, hostile.train, AGAIN, sample=hostile.test.inputs[:2], scheme=scheme, seed=0)
    exact, plain = points(hostile.net)
    lost = exact - plain
    assert lost > 5
    assert exact - points(result.net)[1] < 0.4 * lost
    assert exact - points(hostile.control)[1] > 0.7 * lost


def tuned(net: nn.Module, scheme: Scheme = "u8s8", seed: int = 0) -> nn.Module:
    samples = quadrants(128, 3)
    return fine_tune(net, samples, SHORT, sample=samples.inputs[:2], scheme=scheme, seed=seed).net


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_net_that_comes_back_is_the_one_that_was_given_with_other_weights(scheme: Scheme) -> None:
    net = swish_net()
    before = digest(net)
    after = tuned(net, scheme)
    assert digest(net) == before
    assert isinstance(after, nn.Sequential)
    assert not after.training
    assert [*after.state_dict()] == [*net.state_dict()]
    unmoved = {name for name, value in after.state_dict().items() if torch.equal(value, net.state_dict()[name])}
    assert unmoved == {"3.unused.weight", "3.unused.bias"}
    norm = after[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert (norm.eps, norm.momentum) == (1e-3, 0.3)


def test_batch_norms_learn_at_their_own_pace_and_settle_half_way() -> None:
    """One step of two learns statistics, with the momentum of the net's own batch norms."""
    net, samples = relu_net(), quadrants(32, 0)
    result = fine_tune(
        net, samples, Schedule(epochs=2, peak=1e-9, batch=32), sample=samples.inputs[:2], scheme="s8s8", seed=0
    )
    with torch.inference_mode():
        seen = net[0](torch.from_numpy(samples.inputs)).mean((0, 2, 3))
    assert torch.allclose(result.net[1].running_mean, 0.3 * seen, atol=2e-3)


def test_gains_of_zero_do_not_spread() -> None:
    net = relu_net()
    nn.init.zeros_(net[1].weight)
    assert all(torch.isfinite(value).all() for value in tuned(net).state_dict().values())


def test_what_was_pruned_away_stays_away() -> None:
    net = relu_net()
    weight = net[0].weight
    zeros = torch.rand_like(weight) < 0.5
    weight.data[zeros] = 0
    after = tuned(net)[0].weight
    assert (after[zeros] == 0).all()
    assert (after[~zeros] != 0).all()


def test_ranges_are_those_of_activations() -> None:
    samples = quadrants(64, 0)
    result = fine_tune(relu_net(), samples, SHORT, sample=samples.inputs[:2], scheme="u8s8", seed=0)
    assert len(result.ranges) == 7
    lows = [low for low, _ in result.ranges.values()]
    assert lows[0] < -1
    assert lows[1:] == [0.0] * 6
    assert all(high > 0 for _, high in result.ranges.values())


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_state_alone() -> None:
    net = relu_net()
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    first, second, other = (digest(tuned(net, seed=seed)) for seed in (0, 0, 1))
    assert first == second != other
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


PROGRAM = """
from tests.model_compiler.learning.test_qat import digest, fresh, tuned
print(digest(tuned(fresh("swish"))))
"""


@pytest.mark.integration
def test_another_process_gives_the_same_weights_and_says_nothing() -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=root,
        env=environment,
        check=True,
    )
    assert ran.stderr == ""
    assert ran.stdout.strip() == digest(tuned(fresh("swish")))


class Branching(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = inputs.flatten(1)
        outputs: torch.Tensor = self.layer(flat if flat.sum() > 0 else -flat)
        return outputs


class FixedBatch(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(inputs.reshape(2, 256))
        return outputs


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (Branching(), r"flat\.sum\(\) > 0.*torch\.where.*compile without quantization-aware training"),
        (FixedBatch(), r"constant \(2\).*no batch size as a number"),
    ],
)
def test_a_net_that_cannot_be_captured_is_refused_with_what_to_do(
    net: nn.Module, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CompileError, match=told):
        tuned(net)
    assert capfd.readouterr() == ("", "")


def test_a_net_with_nothing_to_round_is_refused() -> None:
    with pytest.raises(CompileError, match="found no convolution or linear layer"):
        tuned(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()))


def test_samples_without_labels_are_refused() -> None:
    samples = Arrays(quadrants(8, 0).inputs, np.full(8, -1))
    with pytest.raises(CompileError, match="learn from a teacher"):
        fine_tune(relu_net(), samples, SHORT, sample=samples.inputs[:2], scheme="u8s8", seed=0)


def test_without_torchao_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qat_capture", "qat_quantizer"):
        monkeypatch.delitem(sys.modules, f"model_compiler.learning.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torchao.quantization.pt2e", None)
    with pytest.raises(CompileError, match=r"needs torchao.*pip install 'foothill\[compiler\]'"):
        tuned(relu_net())
