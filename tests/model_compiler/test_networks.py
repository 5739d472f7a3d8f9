"""Networks: their first weights come from the seed, given ones must be theirs; told apart, and kept whole."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model_compiler.errors import CompileError
from model_compiler.learning.train import Schedule, train
from model_compiler.networks import build, digest_of_net, save_net, saved_net
from model_compiler.plan import Net
from tests.model_compiler.small import CLASSES, first_net, net, rows, told_by, weights_of

SAMPLES = rows(32, 0)
SAMPLE = SAMPLES.inputs[:2]


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES))


def built(make: Any, seed: int = 0, weights: Path | None = None) -> nn.Module:
    return build(Net("nets:some", make, weights), seed, SAMPLE)


@pytest.mark.parametrize("make", [net, lazy])
def test_the_seed_decides_the_first_weights_and_nothing_else_does(make: Any) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (built(make, seed) for seed in (3, 3, 4))
    assert weights_of(first) == weights_of(again) != weights_of(other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training


def test_layers_that_find_their_shapes_themselves_can_be_trained() -> None:
    made = built(lazy)
    before = weights_of(made)
    train(made, SAMPLES, Schedule(epochs=1, peak=0.1, batch=16), seed=0)
    assert weights_of(made) != before
    assert told_by(made, SAMPLE).shape == (2, CLASSES)


def saved(some: nn.Module, path: Path, **changes: torch.Tensor) -> Path:
    save_file({**some.state_dict(), **changes}, path)
    return path


@pytest.mark.parametrize("make", [net, lazy])
def test_given_weights_fill_it_whatever_the_seed(make: Any, tmp_path: Path) -> None:
    whole = first_net(seed=9)
    made = built(make, 5, saved(whole, tmp_path / "w.safetensors"))
    assert weights_of(made) == weights_of(whole)


def test_weights_that_are_none_or_not_its_own_are_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "w.safetensors", first_net()
    with pytest.raises(CompileError, match=r"w\.safetensors is no safetensors file: .* Save it with safetensors"):
        built(net, weights=path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(CompileError, match="is no safetensors file"):
        built(net, weights=path)
    with pytest.raises(
        CompileError, match=r"does not fit nets:some: .*size mismatch .* Give the weights of this network"
    ):
        built(net, weights=saved(first_net(width=4), path))
    with pytest.raises(CompileError, match=r"does not fit nets:some: .*more"):
        built(net, weights=saved(whole, path, more=torch.ones(1)))
    with pytest.raises(CompileError, match=r"w\.safetensors: 0\.bias holds NaN or infinity"):
        built(net, weights=saved(whole, path, **{"0.bias": torch.full((8,), torch.inf)}))


def broken() -> nn.Module:
    raise OSError("weights are elsewhere")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (dict, r"^nets:some gave dict, not a torch\.nn\.Module"),
        (broken, r"^nets:some raised OSError: weights are elsewhere \(.*test_networks\.py:\d+\)"),
        (
            lambda: nn.Sequential(nn.Linear(7, 2), nn.LazyLinear(2)),
            r"^nets:some on inputs \[2, 6\] raised RuntimeError",
        ),
    ],
)
def test_what_gives_no_network_is_told_by_its_name(make: Any, told: str) -> None:
    with pytest.raises(CompileError, match=told):
        built(make)


class Kept(nn.Module):  # type: ignore[misc]
    """State of every kind: a buffer of booleans, one of nothing, one without a dimension, weights out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("count", torch.tensor(3))
        self.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.weight


@pytest.mark.parametrize(
    "change",
    [
        lambda some: some.mask.logical_not_(),
        lambda some: some.count.add_(1),
        lambda some: some.weight.data.T[0, 0].add_(1e-6),
        lambda some: setattr(some, "nothing", torch.zeros(0, 2)),
        lambda some: setattr(some, "count", some.count.to(torch.int32)),
        lambda some: some.add_module("more", nn.ReLU()),
    ],
)
def test_networks_are_told_apart_by_form_and_every_number(change: Any) -> None:
    one, same = Kept(), Kept()
    assert digest_of_net(one) == digest_of_net(same) == digest_of_net(copy.deepcopy(one))
    change(same)
    assert digest_of_net(one) != digest_of_net(same)


def test_networks_of_other_code_are_others() -> None:
    assert digest_of_net(first_net(), "a") != digest_of_net(first_net(), "b") != digest_of_net(first_net())


def test_a_kept_network_comes_back_in_its_form(tmp_path: Path) -> None:
    """Pruned layers have shapes that no class gives again."""
    whole = first_net(width=5).train()
    save_net(whole, tmp_path)
    back = saved_net(tmp_path)
    assert digest_of_net(back) == digest_of_net(whole)
    assert not back.training
    assert np.array_equal(told_by(back, SAMPLE), told_by(whole.eval(), SAMPLE))


def test_a_network_of_a_class_that_is_not_found_again_is_refused(tmp_path: Path) -> None:
    class Inner(nn.Linear):  # type: ignore[misc]
        pass

    with pytest.raises(CompileError, match=r"^Inner cannot be kept: .*Define its classes at the top of their module"):
        save_net(Inner(2, 2), tmp_path)
    assert list(tmp_path.iterdir()) == []
