"""Channels that can go: in whole steps, never all, and what stays whole says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from model_compiler.errors import CompileError
from model_compiler.learning.channels import Group, check_names, find_groups, without

PICTURES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def reached(group: Group) -> list[int]:
    """How many can have gone, step by step."""
    gone = [0]
    while gone[-1] < group.most():
        gone.append(group.next_removed(gone[-1]))
    return gone


@given(st.integers(1, 300), st.integers(1, 32), st.floats(0, 1))
def test_every_step_leaves_a_multiple_and_the_last_leaves_one_step(channels: int, step: int, share: float) -> None:
    group = Group("a", ("a",), channels, step)
    gone = reached(group)
    assert gone == sorted(set(gone))
    assert all((channels - each) % step == 0 for each in gone[1:])
    assert all(channels - each >= step for each in gone[1:])
    assert gone[-1] == group.most()
    if group.most():
        assert len(gone) == (channels - 1) // step + 1
        nearest = group.nearest(share)
        assert nearest in gone[1:]
        assert abs(nearest - share * channels) == min(abs(each - share * channels) for each in gone[1:])


class Net(nn.Module):  # type: ignore[misc]
    """A layer of every kind: one that can lose channels, a small one, one whose width is written down, the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.small = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1)
        self.fixed, self.after, self.head = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 1), nn.Linear(16, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        fixed = self.fixed(self.small(self.free(inputs).relu())).relu()
        pooled = self.after(fixed.reshape(-1, 16, 6, 6)).mean((2, 3))
        answers: torch.Tensor = self.head(pooled)
        return answers


def test_what_stays_whole_says_why() -> None:
    found = find_groups(Net().eval(), PICTURES, keep=("after",), round_to=8)
    assert [(each.name, each.channels, each.step) for each in found.prunable] == [("free", 16, 8)]
    reasons = {each.name: each.why for each in found.whole}
    assert reasons["small"] == "has no more than 8 channels"
    assert reasons["after"] == "kept by name"
    assert reasons["head"] == "they are the network's outputs"
    assert reasons["fixed"].startswith("the network does not run without some of them (RuntimeError)")


def test_the_channels_of_least_magnitude_go() -> None:
    """Of what makes a channel and of what uses it; equal ones in their order."""
    net = Net().eval()
    with torch.no_grad():
        net.free.weight.fill_(1.0)
        net.free.bias.fill_(0.0)
        net.small.weight.fill_(1.0)
        net.free.weight[[2, 9]] = 0.1
        net.small.weight[:, [4, 5]] = 0.1
        net.free.weight[7] = 3.0
        net.free.weight[:, 0] += torch.arange(16.0)[:, None, None] / 100
    smaller = without(net, PICTURES, {"free": 8})
    kept = smaller.free.weight[:, 0, 0, 0]
    assert kept.tolist() == pytest.approx(
        [net.free.weight[row, 0, 0, 0].item() for row in (7, 8, 10, 11, 12, 13, 14, 15)]
    )
    assert net.free.out_channels == 16


class Moody(nn.Module):  # type: ignore[misc]
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise ValueError("not today")


def test_what_cannot_be_traced_or_is_not_there_is_refused() -> None:
    with pytest.raises(
        CompileError, match=r"cannot be traced for pruning \(ValueError: not today\).*shape \(2, 3, 8, 8\)"
    ):
        find_groups(Moody(), PICTURES, keep=(), round_to=8)
    with pytest.raises(
        CompileError, match=r"has no layer 'lost' to keep\. Its layers: free, small, fixed, after, head"
    ):
        check_names(Net(), {"free", "lost"})
