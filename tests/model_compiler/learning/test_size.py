"""Sizes of networks: weights, multiply-adds and bytes, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from model_compiler.learning.size import size_of


@pytest.mark.parametrize(
    ("net", "shape", "multiply_adds"),
    [
        (nn.Linear(6, 4), (3, 6), 6 * 4),
        (nn.Linear(6, 4), (3, 7, 6), 7 * 6 * 4),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 3, 10, 10), 5 * 5 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, groups=8), (3, 8, 6, 6), 4 * 4 * 8 * 9),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (3, 4, 5, 5), 5 * 5 * 4 * 2 * 4),
        (nn.Conv1d(2, 3, 5), (3, 2, 9), 5 * 3 * 2 * 5),
    ],
)
def test_multiply_adds_are_those_of_one_sample(net: nn.Module, shape: tuple[int, ...], multiply_adds: int) -> None:
    assert size_of(net, np.zeros(shape, np.float32)).multiply_adds == multiply_adds


def test_a_layer_used_twice_works_twice_and_weighs_once() -> None:
    layer = nn.Linear(4, 4, bias=False)
    size = size_of(nn.Sequential(layer, nn.ReLU(), layer), np.zeros((1, 4), np.float32))
    assert (size.weights, size.multiply_adds) == (16, 32)


def test_zeros_weigh_the_same_until_they_are_compressed() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    sample = np.zeros((2, 64), np.float32)
    full = size_of(net, sample)
    # The norm's weights, means and variances, and the number of batches that it has seen as int64.
    assert full.bytes == 4 * (64 * 64 + 64 + 4 * 64) + 8
    assert full.weights == 64 * 64 + 3 * 64
    with torch.no_grad():
        net[0].weight[::2] = 0
    half = size_of(net, sample)
    assert half.nonzero == full.nonzero - 32 * 64
    assert (half.weights, half.bytes, half.multiply_adds) == (full.weights, full.bytes, full.multiply_adds)
    assert half.compressed_bytes < 0.7 * full.compressed_bytes
    assert net.training
