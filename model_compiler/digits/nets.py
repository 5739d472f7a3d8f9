"""The two networks of the digits recipe: input (n, 1, 32, 32) float32, output (n, 10) logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def teacher(width: int = 32) -> torch.nn.Module:
    """~392,000 weights and ~5 million multiply-adds at width 32; both grow with its square."""
    from torch import nn

    return nn.Sequential(
        *_convolve(1, width, kernel=5, stride=2),
        *_convolve(width, 2 * width, stride=2),
        *_convolve(2 * width, 2 * width, stride=1),
        *_convolve(2 * width, 4 * width, stride=2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * width * 16, 4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, 10),
    )


def student() -> torch.nn.Module:
    """~7,000 weights, ~0.1 million multiply-adds in few operations: starting one costs most here."""
    from torch import nn

    return nn.Sequential(
        *_convolve(1, 12, kernel=5, stride=4),
        *_convolve(12, 24, stride=2),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


def _convolve(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int) -> tuple[torch.nn.Module, ...]:
    """Convolution, batch norm, ReLU; the export folds the norm into the convolution."""
    from torch import nn

    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()
