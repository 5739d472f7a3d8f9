"""How big a network is: its weights, its arithmetic, its bytes as they are and compressed."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from model_compiler.data.samples import Floats
from model_compiler.learning.judge import evaluating

if TYPE_CHECKING:
    import torch


class Size(msgspec.Struct, frozen=True):
    """`weights` counts the parameters, `nonzero` those that are not 0.

    `multiply_adds` are those of the convolutions and linear layers for one sample: what the processor does, zeros
    included. `bytes` are the state's as stored, `compressed_bytes` after zlib (level 6), as when sent.
    """

    weights: int
    nonzero: int
    multiply_adds: int
    bytes: int
    compressed_bytes: int


def size_of(net: torch.nn.Module, sample: Floats) -> Size:
    """`sample`: (n >= 1, ...) float32, inputs as `net` takes them."""
    parameters = list(net.parameters())
    raw, compressed = _bytes(net)
    return Size(
        weights=sum(each.numel() for each in parameters),
        nonzero=sum(int(each.count_nonzero()) for each in parameters),
        multiply_adds=_multiply_adds(net, sample),
        bytes=raw,
        compressed_bytes=compressed,
    )


def _bytes(net: torch.nn.Module) -> tuple[int, int]:
    raw, compressed, packer = 0, 0, zlib.compressobj(6)
    for values in net.state_dict().values():
        data = values.detach().contiguous().numpy().tobytes()
        raw += len(data)
        compressed += len(packer.compress(data))
    return raw, compressed + len(packer.flush())


def _multiply_adds(net: torch.nn.Module, sample: Floats) -> int:
    """Each weight of a convolution or linear layer is used once for every place that it is moved to."""
    import torch

    counted: list[int] = []

    def count(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        # A transposed convolution moves its weights over the inputs' places, any other layer over the outputs'.
        transposed = getattr(layer, "transposed", False)
        places = inputs[0].numel() // layer.in_channels if transposed else output.numel() // layer.weight.shape[0]
        counted.append(places * layer.weight.numel())

    layers = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    hooks = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, layers)]
    try:
        with evaluating(net), torch.inference_mode():
            net(torch.from_numpy(sample[:1]))
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counted)
