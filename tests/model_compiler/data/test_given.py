"""What a user's loader gives: taken, or refused with what is wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model_compiler.data.given import taken
from model_compiler.data.samples import Arrays, Floats, first
from model_compiler.errors import CompileError


def pictures(rows: int = 4) -> Floats:
    return np.random.default_rng(0).standard_normal((rows, 1, 2, 2), np.float32)


class Own:
    """Samples as a user might write them; `flaw` is what is wrong with their rows from 2 on."""

    def __init__(self, flaw: str = "") -> None:
        self.flaw, self.labels = flaw, np.array([0, 1, 0, 1])

    def __len__(self) -> int:
        return 4

    def digest(self) -> str:
        if self.flaw == "digest":
            raise OSError("disk gone")
        return "abc"

    def batch(self, rows: npt.NDArray[np.int64]) -> Any:
        inputs = pictures()[rows]
        if rows.max() < 2:
            return inputs
        if self.flaw == "raises":
            raise KeyError("row")
        flaws = {"short": inputs[:-1], "wide": inputs[..., :1], "list": inputs.tolist(), "half": inputs.astype("f2")}
        if self.flaw == "nan":
            inputs[rows == 3] = np.nan
        return flaws.get(self.flaw, inputs)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, bool])
def test_a_pair_of_arrays_becomes_samples_with_labels_of_64_bits(dtype: type) -> None:
    samples = taken((pictures(), np.array([0, 1, 1, 0], dtype)), "nets:train")
    assert len(samples) == 4
    assert samples.labels.dtype == np.int64
    assert np.array_equal(first(samples, 4), pictures())
    assert samples.digest() == taken([pictures(), np.array([0, 1, 1, 0], dtype)], "other").digest()


def test_labels_of_a_metric_of_ones_own_stay_as_they_are() -> None:
    boxes = np.random.default_rng(0).random((4, 5, 4))
    assert taken(Arrays(pictures(), boxes), "nets:train").labels is boxes


def test_samples_of_ones_own_are_taken_as_they_are() -> None:
    samples = taken(Own(), "nets:train")
    assert np.array_equal(samples.batch(np.array([3, 1])), pictures()[[3, 1]])
    assert samples.digest() == "abc"


@pytest.mark.parametrize(
    ("loaded", "told"),
    [
        (None, r"gave NoneType\. Return a pair of arrays"),
        (pictures(), r"gave ndarray\. Return a pair"),
        ((pictures(), np.zeros(3, np.int64)), r"gave inputs of shape \[4, 1, 2, 2\] and labels of shape \[3\]"),
        ((pictures(), 3), r"labels of shape \[\]\. Give as many labels as inputs"),
        ((pictures(0), np.zeros(0, np.int64)), "gave no samples"),
        ((pictures().astype(np.float64), np.zeros(4, np.int64)), r"inputs as float64\. Return them with .astype"),
        ((np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int64)), "inputs as uint8"),
        (([[1.0], [1.0, 2.0]], [0, 1]), "gave what becomes no array"),
        ((pictures(), np.array(["a", None, "b", "c"], object)), "labels that are no numbers"),
        ((np.full((4, 1), np.inf, np.float32), np.zeros(4, np.int64)), "NaN or infinity in row 0"),
    ],
)
def test_what_is_no_samples_is_refused_by_its_name(loaded: object, told: str) -> None:
    with pytest.raises(CompileError, match=rf"^nets:train .*{told}"):
        taken(loaded, "nets:train")


@pytest.mark.parametrize(
    ("flaw", "told"),
    [
        ("raises", r"nets:train: batch\(\) raised KeyError: 'row' \(.*test_given.py:\d+\)\."),
        ("short", r"gives \[1, 1, 2, 2\] for 2 rows"),
        ("wide", r"rows of shape \[1, 2, 1\], and the first of shape \[1, 2, 2\]"),
        ("list", "inputs as list"),
        ("half", "inputs as float16"),
        ("nan", "NaN or infinity in row 3"),
    ],
)
def test_what_goes_wrong_in_a_later_row_is_found_when_it_is_used(flaw: str, told: str) -> None:
    samples = taken(Own(flaw), "nets:train")
    assert len(samples.batch(np.array([0, 1]))) == 2
    with pytest.raises(CompileError, match=told):
        samples.batch(np.array([1, 3]))


def test_a_digest_that_fails_is_told() -> None:
    with pytest.raises(CompileError, match=r"digest\(\) raised OSError: disk gone"):
        taken(Own("digest"), "nets:train").digest()
