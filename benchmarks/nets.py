"""The networks of the compiler's benchmarks: input (n, 3, 32, 32) float32, output (n, 10) logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SPREAD = 1.0


class Gate(nn.Module):
    """Squeeze and excite (Hu et al. 2017): each channel times a number between 0 and 1 made of all channels' means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, channels, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.sigmoid(self.squeeze(inputs.mean((2, 3), keepdim=True)))


class Inverted(nn.Module):
    """An inverted bottleneck with swish and a gate, as in MobileNetV3 and EfficientNet (Tan, Le 2019)."""

    def __init__(self, channels_in: int, channels_out: int, *, wider: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = wider * channels_in
        self.inner = nn.Sequential(
            *_convolve(channels_in, middle, 1, 1),
            *_convolve(middle, middle, kernel, stride, depthwise=True),
            Gate(middle, max(4, channels_in // 4)),
            *_convolve(middle, channels_out, 1, 1)[:2],
        )
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs)
        return inputs + outputs if self.residual else outputs


def hostile() -> nn.Module:
    """Depthwise convolutions, squeeze-excite and swish; about 86,000 weights.

    The scales of the norms before and after each depthwise convolution start log-normal around 1, where they usually
    all start at 1. After folding, channels of one tensor then differ by two orders of magnitude, as those of a
    MobileNet do after long training (Nagel et al. 2019, figure 2), and not one weight is touched after training.
    """
    net = nn.Sequential(
        *_convolve(3, 16, 3, 2),
        Inverted(16, 24, wider=3, kernel=3, stride=2),
        Inverted(24, 24, wider=4, kernel=3, stride=1),
        Inverted(24, 24, wider=4, kernel=5, stride=1),
        Inverted(24, 48, wider=4, kernel=3, stride=2),
        Inverted(48, 48, wider=4, kernel=3, stride=1),
        Inverted(48, 48, wider=4, kernel=5, stride=1),
        *_convolve(48, 192, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(192, 10),
    )
    for block in net:
        if isinstance(block, Inverted):
            for norm in (block.inner[1], block.inner[4]):
                norm.weight.data.normal_(0.0, _SPREAD).exp_()
    return net.to(memory_format=torch.channels_last)


def _convolve(
    channels_in: int, channels_out: int, kernel: int, stride: int, *, depthwise: bool = False
) -> tuple[nn.Module, ...]:
    groups = channels_in if depthwise else 1
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.SiLU()


class Spared(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2015). The second ignores channel 0 of what the first writes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.second, self.norm = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        self.register_buffer("mask", torch.ones(1, channels, 1, 1))
        self.mask[:, 0] = 0

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.relu(self.first(inputs))
        outputs = self.norm(nn.functional.conv2d(hidden, self.second.weight * self.mask, padding=1))
        return torch.relu(inputs + outputs)


def deep(blocks: int) -> nn.Module:
    """Three times `blocks` residual blocks; int8 hardly hurts it. In each block one channel means nothing.

    So a fault can be planted in that channel, and the float model answers as before.
    """
    return nn.Sequential(
        *_rectified(3, 16, 2),
        *(Spared(16) for _ in range(blocks)),
        *_rectified(16, 32, 2),
        *(Spared(32) for _ in range(blocks)),
        *_rectified(32, 64, 2),
        *(Spared(64) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    ).to(memory_format=torch.channels_last)


def _rectified(channels_in: int, channels_out: int, stride: int) -> tuple[nn.Module, ...]:
    return (*_convolve(channels_in, channels_out, 3, stride)[:2], nn.ReLU())
