"""The networks of the CIFAR-10 example: input (n, 3, 32, 32) float32, output (n, 10) logits."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(*convolve(channels, channels), *convolve(channels, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs + self.inner(inputs)
        return outputs


def teacher(width: int = 48) -> nn.Module:
    """At width 48: 1.7 million weights, 118 million multiply-adds; both grow with the square of the width."""
    return nn.Sequential(
        *convolve(3, width),
        *convolve(width, 2 * width, stride=2),
        Residual(2 * width),
        *convolve(2 * width, 4 * width, stride=2),
        Residual(4 * width),
        *convolve(4 * width, 8 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


def student() -> nn.Module:
    """The teacher's form at half its width: a quarter of its weights and of its multiply-adds."""
    return teacher(24)


def convolve(channels_in: int, channels_out: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    """Convolution, batch norm, ReLU; the export folds the norm into the convolution."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()
