"""Views of training inputs: mirrored, shifted, partly covered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.data.samples import Numbers

if TYPE_CHECKING:
    import torch


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may change between two looks at one input (n, channels, height, width).

    `flip` mirrors left and right, every other view of each sample; `shift` moves by up to so many pixels each way,
    zeros moving in; `cutout` covers a square of so many pixels with zeros (DeVries, Taylor 2017).
    `views`: how many different looks there are; 0 means a new one every epoch. A teacher's answers can be remembered
    for a few views, not for endlessly many.
    """

    flip: bool = False
    shift: int = 0
    cutout: int = 0
    views: int = 1

    def view_of(self, epoch: int) -> int:
        return epoch % self.views if self.views else epoch


PLAIN = Augment()


class View:
    """One look at all `count` samples of a set; the same for the same `seed` and `number` in any process."""

    def __init__(self, augment: Augment, count: int, number: int, *, seed: int) -> None:
        self._augment = augment
        # The first mirrors come from the seed alone, so that every other view shows each sample the other way round.
        first = np.random.default_rng(seed).random(count) < 0.5
        self._flips = first ^ bool(number % 2) if augment.flip else np.zeros(count, bool)
        draw = np.random.default_rng((seed, number))
        self._shifts = draw.integers(0, 2 * augment.shift + 1, (count, 2))
        self._holes = draw.random((count, 2))

    def apply(self, inputs: torch.Tensor, rows: Numbers) -> torch.Tensor:
        """`inputs` of the samples `rows`, as this view shows them; the same shape."""
        import torch

        augment = self._augment
        if augment.flip:
            flips = torch.from_numpy(self._flips[rows])[:, None, None, None]
            inputs = torch.where(flips, inputs.flip(3), inputs)
        if augment.shift:
            inputs = _shifted(inputs, torch.from_numpy(self._shifts[rows]), augment.shift)
        if augment.cutout:
            inputs = _covered(inputs, torch.from_numpy(self._holes[rows]), augment.cutout)
        return inputs


def _shifted(inputs: torch.Tensor, shifts: torch.Tensor, most: int) -> torch.Tensor:
    import torch

    height, width = inputs.shape[2:]
    padded = torch.nn.functional.pad(inputs, (most,) * 4).permute(0, 2, 3, 1)
    down = (shifts[:, :1] + torch.arange(height))[:, :, None]
    across = (shifts[:, 1:] + torch.arange(width))[:, None, :]
    return padded[torch.arange(len(inputs))[:, None, None], down, across].permute(0, 3, 1, 2)


def _covered(inputs: torch.Tensor, holes: torch.Tensor, size: int) -> torch.Tensor:
    import torch

    height, width = inputs.shape[2:]
    top, left = (holes[:, 0] * height).long(), (holes[:, 1] * width).long()
    down, across = torch.arange(height) - top[:, None], torch.arange(width) - left[:, None]
    rows, columns = ((each >= -(size // 2)) & (each < (size + 1) // 2) for each in (down, across))
    return inputs * ~(rows[:, None, :, None] & columns[:, None, None, :])
