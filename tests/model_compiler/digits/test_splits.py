"""The digits' parts are disjoint, complete, stratified and fixed."""

from __future__ import annotations

import numpy as np
import pytest

from model_compiler.digits import splits


def test_every_digit_is_in_exactly_one_part() -> None:
    parts = splits.split(splits.load())
    rows = np.concatenate([part.rows for part in parts.values()])
    assert sorted(rows.tolist()) == list(range(1797))


def test_no_picture_of_one_part_is_in_another() -> None:
    """Two numbers of the data set could still be the same scan."""
    parts = splits.split(splits.load())
    seen = [{picture.tobytes() for picture in part.pictures} for part in parts.values()]
    for index, pictures in enumerate(seen):
        assert all(pictures.isdisjoint(others) for others in seen[index + 1 :])


def test_parts_have_their_share_of_every_label() -> None:
    digits = splits.load()
    for name, part in splits.split(digits).items():
        shares = np.bincount(part.labels, minlength=10) / np.bincount(digits.labels)
        assert shares == pytest.approx(splits.SHARES[name], abs=0.01)


def test_the_split_is_the_same_every_time() -> None:
    first, second = (splits.split(splits.load()) for _ in range(2))
    assert all(np.array_equal(first[part].rows, second[part].rows) for part in splits.SHARES)
