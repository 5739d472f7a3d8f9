"""Views: repeatable in another process, different from one another, and only what was asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model_compiler.learning.augment import PLAIN, Augment, View

COUNT = 16
ROWS = np.arange(COUNT)


def pictures(count: int = COUNT, size: int = 8) -> torch.Tensor:
    """Every pixel another number above 0, so that what moved in is known by its 0."""
    return torch.arange(1, count * 2 * size * size + 1, dtype=torch.float32).view(count, 2, size, size)


def view(augment: Augment, number: int, seed: int = 0) -> torch.Tensor:
    return View(augment, COUNT, number, seed=seed).apply(pictures(), ROWS)


IN_ANOTHER_PROCESS = """
import hashlib, sys
import numpy as np, torch
from model_compiler.learning.augment import Augment, View
inputs = torch.arange(1, 16 * 2 * 8 * 8 + 1, dtype=torch.float32).view(16, 2, 8, 8)
seen = View(Augment(flip=True, shift=2, cutout=3, views=4), 16, 3, seed=5).apply(inputs, np.arange(16))
sys.stdout.write(hashlib.sha256(seen.contiguous().numpy().tobytes()).hexdigest())
"""


def test_a_view_is_the_same_in_another_process() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        cwd=Path(__file__).parents[3],
        env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        timeout=100,
    )
    seen = view(Augment(flip=True, shift=2, cutout=3, views=4), 3, seed=5)
    assert result.stdout.decode() == hashlib.sha256(seen.contiguous().numpy().tobytes()).hexdigest()


def test_a_row_looks_the_same_in_any_batch() -> None:
    augment = Augment(flip=True, shift=2, cutout=3, views=4)
    rows = np.array([11, 3, 3])
    some = View(augment, COUNT, 1, seed=0).apply(pictures()[rows], rows)
    assert torch.equal(some, view(augment, 1)[rows])


def test_plain_views_leave_inputs_alone() -> None:
    for number in range(3):
        assert torch.equal(view(PLAIN, number), pictures())
    vectors = torch.ones(COUNT, 3)
    assert torch.equal(View(PLAIN, COUNT, 0, seed=0).apply(vectors, ROWS), vectors)


def test_every_other_view_shows_each_sample_mirrored() -> None:
    augment = Augment(flip=True, views=4)
    inputs, mirrored = pictures(), pictures().flip(3)
    turned = []
    for number in range(4):
        seen = view(augment, number)
        turned.append([torch.equal(seen[row], mirrored[row]) for row in range(COUNT)])
        for row in range(COUNT):
            assert torch.equal(seen[row], (mirrored if turned[number][row] else inputs)[row])
    assert turned[0] == [not each for each in turned[1]] == turned[2]
    assert 0 < sum(turned[0]) < COUNT


def test_shifts_stay_within_their_bound_and_bring_zeros_in() -> None:
    most, size = 2, 8
    found = set()
    for number in range(20):
        for before, after in zip(pictures(), view(Augment(shift=most, views=0), number), strict=True):
            inside = after != 0
            assert bool(torch.isin(after[inside], before).all())
            down, across = offset(before, after)
            assert max(abs(down), abs(across)) <= most
            assert int(inside.sum()) == 2 * (size - abs(down)) * (size - abs(across))
            found.add((down, across))
    assert found == {(down, across) for down in range(-2, 3) for across in range(-2, 3)}


def offset(before: torch.Tensor, after: torch.Tensor) -> tuple[int, int]:
    """By how many rows and columns `after` shows `before` moved up and left."""
    row, column = (int(each[0]) for each in torch.nonzero(after[0], as_tuple=True))
    found = torch.nonzero(before[0] == after[0, row, column])[0]
    return int(found[0]) - row, int(found[1]) - column


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_covers_a_square_in_all_channels(size: int) -> None:
    widest = 0
    for number in range(10):
        for before, after in zip(pictures(), view(Augment(cutout=size, views=0), number), strict=True):
            hole = after == 0
            assert torch.equal(hole[0], hole[1])
            assert torch.equal(after[~hole], before[~hole])
            down, across = int(hole[0].any(dim=1).sum()), int(hole[0].any(dim=0).sum())
            assert int(hole[0].sum()) == down * across
            assert min(down, across) > 0
            widest = max(widest, down, across)
    assert widest == size


def test_views_come_round_or_never_end() -> None:
    assert [Augment(views=3).view_of(epoch) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [Augment(views=0).view_of(epoch) for epoch in range(4)] == [0, 1, 2, 3]
    assert [PLAIN.view_of(epoch) for epoch in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("augment", [Augment(shift=2, views=0), Augment(cutout=3, views=0)])
def test_views_differ_by_number_and_by_seed(augment: Augment) -> None:
    assert not torch.equal(view(augment, 0), view(augment, 1))
    assert not torch.equal(view(augment, 0), view(augment, 0, seed=1))
