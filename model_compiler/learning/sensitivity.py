"""How much a network loses when one group of its channels shrinks alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.data.samples import Floats
from model_compiler.learning.channels import Group, without
from model_compiler.progress import Advance, unwatched

if TYPE_CHECKING:
    import torch

    from model_compiler.learning.judge import Judge

LEVELS = (0.25, 0.5, 0.75)


class Sensitivity(msgspec.Struct, frozen=True):
    """`lost`: shares of the group's channels taken away, rising from 0 to 1; `drops`: what the score fell by, of 1."""

    name: str
    lost: tuple[float, ...]
    drops: tuple[float, ...]

    def damage(self, lost: float) -> float:
        """The drop when the share `lost` goes, on straight lines between what was measured."""
        return float(np.interp(lost, self.lost, self.drops))


def measure_sensitivity(
    net: torch.nn.Module,
    sample: Floats,
    groups: Sequence[Group],
    judge: Judge,
    *,
    advance: Advance = unwatched,
) -> list[Sensitivity]:
    """Scores `net` without about a quarter, half and three quarters of each group's channels, one group at a time.

    Per-layer sensitivity as in Li et al. 2017, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, section 3.
    """
    full = judge(net)
    found = []
    for number, group in enumerate(groups):
        counts = sorted({group.nearest(level) for level in LEVELS})
        drops = [full - judge(without(net, sample, {group.name: count})) for count in counts]
        found.append(curve(group, counts, drops, full))
        advance((number + 1) / len(groups))
    return found


def curve(group: Group, counts: Sequence[int], drops: Sequence[float], full: float) -> Sensitivity:
    """From 0 without loss to the whole score `full` for all channels; never falling, so that luck does not count."""
    lost = (0.0, *(count / group.channels for count in counts), 1.0)
    return Sensitivity(group.name, lost, tuple(accumulate((0.0, *drops, full), max)))
