"""What goes into a network's last linear layer: the features that its answers are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_compiler.data.samples import Floats
from model_compiler.learning.judge import evaluating

if TYPE_CHECKING:
    import torch


class Tap:
    """`features`: (n, f) of the latest run, the mean over tokens or places where there are any."""

    features: torch.Tensor

    def __call__(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        given = inputs[0]
        self.features = given if given.ndim == 2 else given.flatten(1, -2).mean(dim=1)


@contextmanager
def tapped(layer: torch.nn.Linear) -> Iterator[Tap]:
    """Keeps what goes into `layer` inside; gradients flow through what is kept."""
    tap = Tap()
    hook = layer.register_forward_pre_hook(tap)
    try:
        yield tap
    finally:
        hook.remove()


def last_linear(net: torch.nn.Module, sample: Floats) -> torch.nn.Linear | None:
    """The linear layer that runs last on `sample` (n >= 1, ...), float32; None where there is none."""
    import torch

    ran: list[torch.nn.Linear] = []
    layers = [module for module in net.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda layer, inputs: ran.append(layer)) for layer in layers]
    try:
        with evaluating(net), torch.no_grad():
            net(torch.from_numpy(sample))
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1] if ran else None
