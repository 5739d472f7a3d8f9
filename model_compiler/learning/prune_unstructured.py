"""Single weights set to 0: smaller when compressed, no faster. And how they stay 0 while the network learns on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.errors import CompileError
from model_compiler.learning.channels import check_names

if TYPE_CHECKING:
    import torch


class SparseLayer(msgspec.Struct, frozen=True):
    """`weights` there are; `before` and `after` are those other than 0."""

    name: str
    weights: int
    before: int
    after: int


def zero_least(
    net: torch.nn.Module, share: float, *, keep: Iterable[str] = ()
) -> tuple[torch.nn.Module, list[SparseLayer]]:
    """A copy of `net` in eval mode, with the `share` of least magnitude among all its layers' weights set to 0.

    All weights of convolutions and linear layers are ranked together, those of layers named in `keep` left out; equal
    ones in their order. Biases and norms stay. Han et al. 2015, "Learning both Weights and Connections for Efficient
    Neural Networks", arXiv:1506.02626. Raises CompileError where nothing can go, or a layer would lose all.
    """
    import torch

    sparse = copy.deepcopy(net).eval()
    layers = _layers(sparse, set(keep))
    magnitudes = np.concatenate([layer.weight.detach().abs().flatten().numpy() for layer in layers.values()])
    gone = np.zeros(len(magnitudes), bool)
    gone[np.argsort(magnitudes, kind="stable")[: round(share * len(magnitudes))]] = True
    found, start = [], 0
    for name, layer in layers.items():
        weight = layer.weight
        before, end = int(weight.count_nonzero()), start + weight.numel()
        with torch.no_grad():
            weight[torch.from_numpy(gone[start:end]).view(weight.shape)] = 0
        found.append(SparseLayer(name, weight.numel(), before, int(weight.count_nonzero())))
        start = end
    _check_alive(found, share)
    return sparse, found


@contextmanager
def zeros_held(net: torch.nn.Module) -> Iterator[None]:
    """Inside, weights that are 0 stay 0 in training; train a network without single weights in here.

    Their gradients are 0, and AdamW moves a weight that is 0 and never had a gradient by nothing.
    """
    kept = ((layer.weight, layer.weight.detach() != 0) for layer in _prunable(net).values())
    hooks = [weight.register_hook(_masked(mask)) for weight, mask in kept if not mask.all()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _masked(mask: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda gradient: gradient * mask


def _prunable(net: torch.nn.Module) -> dict[str, torch.nn.Module]:
    import torch

    types = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    return {name: each for name, each in net.named_modules() if isinstance(each, types)}


def _layers(net: torch.nn.Module, kept: set[str]) -> dict[str, torch.nn.Module]:
    check_names(net, kept)
    layers = {name: each for name, each in _prunable(net).items() if name not in kept}
    if not layers:
        raise CompileError(
            "Nothing can be pruned in this network: it has no convolution or linear layer but kept ones."
        )
    return layers


def _check_alive(layers: Iterable[SparseLayer], share: float) -> None:
    dead = [layer.name for layer in layers if layer.before and not layer.after]
    if dead:
        raise CompileError(
            f"Pruning {share:.1%} of the weights would leave layer {dead[0]} without any. Ask for a smaller share, or "
            f"keep that layer."
        )
