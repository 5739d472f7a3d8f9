"""Splitting samples: disjoint, complete, repeatable, with every label in every part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.data.parts import split
from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError


def samples(labels: list[int]) -> Arrays:
    return Arrays(np.arange(len(labels), dtype=np.float32)[:, None], np.asarray(labels, np.int64))


@given(st.lists(st.integers(0, 3), min_size=8, max_size=200), st.integers(0, 99))
def test_parts_are_disjoint_and_leave_nothing_out(labels: list[int], seed: int) -> None:
    parts = split(samples(labels), {"fit": 3, "test": 0.25}, seed=seed)
    rows = np.concatenate([part.chosen for part in parts.values()])
    assert sorted(rows) == list(range(len(labels)))
    assert (len(parts["fit"]), len(parts["test"])) == (3, round(len(labels) * 0.25))


def test_every_part_has_its_share_of_every_label() -> None:
    parts = split(samples([0] * 800 + [1] * 200), {"fit": 100, "test": 200}, seed=1)
    assert [int((parts[name].labels == 1).sum()) for name in ("fit", "test")] == pytest.approx([20, 40], abs=2)


def test_the_seed_decides() -> None:
    first, second, other = (split(samples([0, 1] * 50), {"fit": 20}, seed=seed)["fit"].chosen for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_more_than_there_is_is_refused_with_the_counts() -> None:
    with pytest.raises(CompileError, match=r"10 samples cannot be split into fit 6, test 5"):
        split(samples([0] * 10), {"fit": 6, "test": 5}, seed=0)


def test_labels_that_are_no_numbers_are_split_as_well() -> None:
    boxes = Arrays(np.zeros((10, 1), np.float32), np.zeros((10, 4), np.float32))
    assert len(split(boxes, {"fit": 4}, seed=0)["rest"]) == 6
