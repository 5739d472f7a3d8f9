"""The two networks of the digits recipe: input (n, 1, 32, 32) float32, output (n, 10) logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def teacher() -> torch.nn.Module:
    """~394,000 weights, ~5 million multiply-adds."""
    from torch import nn

    return nn.Sequential(
        *_convolve(1, 32, kernel=5, stride=2),
        *_convolve(32, 64, stride=2),
        *_convolve(64, 64, stride=1),
        *_convolve(64, 128, stride=2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(128 * 16, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def student() -> torch.nn.Module:
    """~8,600 weights, ~0.2 million multiply-adds."""
    from torch import nn

    return nn.Sequential(
        *_convolve(1, 8, stride=2),
        *_convolve(8, 16, stride=2),
        *_convolve(16, 24, stride=2),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


def _convolve(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int) -> tuple[torch.nn.Module, ...]:
    """Convolution, batch norm, ReLU; the export folds the norm into the convolution."""
    from torch import nn

    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()
