"""Metrics: a share of 1, whatever the size of the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.data.samples import Floats
from model_compiler.metrics import accuracy, fidelity, row_cosines, score, top_label_agreement
from tests.model_compiler.small import CLASSES, ENDS, RIGHT, linear, rows


def outputs(count: int, seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def test_accuracy_counts_labels_and_agreement_another_models_top_labels() -> None:
    got, labels = {"logits": np.eye(4, 3, dtype=np.float32)}, np.array([0, 1, 1, 2])
    assert accuracy("logits")(got, labels) == 0.5
    other = np.array([[2, 1], [1, 2], [1, 2], [2, 1]], np.float32)
    assert top_label_agreement("logits", other)(got, labels) == 0.75


@given(st.floats(-18, 18), st.integers(0, 99))
def test_a_row_has_the_cosine_of_its_direction_however_long_it_is(exponent: float, seed: int) -> None:
    one, other = outputs(5, seed, 3, 2), outputs(5, seed + 100, 3, 2)
    wanted = row_cosines({"a": one}, {"a": other})
    assert row_cosines({"a": one * np.float32(10**exponent)}, {"a": other}) == pytest.approx(wanted, abs=1e-5)
    assert row_cosines({"a": one * np.float32(10**exponent)}, {"a": one}) == pytest.approx(np.ones(5), abs=1e-5)
    assert row_cosines({"a": -one}, {"a": one}) == pytest.approx(-np.ones(5), abs=1e-5)


def test_a_row_of_zeros_is_like_zeros_and_like_nothing_else() -> None:
    """A detector that finds nothing answers as its float form, which finds nothing either."""
    empty, full = np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)
    assert row_cosines({"boxes": empty}, {"boxes": empty}).tolist() == [1.0, 1.0]
    assert row_cosines({"boxes": empty}, {"boxes": full}).tolist() == [0.0, 0.0]
    assert row_cosines({"boxes": full}, {"boxes": empty}).tolist() == [0.0, 0.0]


def test_every_output_of_the_reference_weighs_the_same() -> None:
    wanted = {"a": outputs(4, 0, 2), "b": outputs(4, 1, 5, 5)}
    got = {"a": -wanted["a"], "b": wanted["b"], "more": outputs(4, 2, 1)}
    assert fidelity(wanted)(got, np.zeros(4)) == pytest.approx(0.0, abs=1e-6)


def test_an_artifact_is_scored_on_every_sample(tmp_path: Path) -> None:
    right = linear(tmp_path / "right.onnx", {"logits": RIGHT})
    samples = rows(200, 0)
    assert score(right, samples, ENDS, accuracy("logits")) == 1.0
    samples.labels[-1] = (samples.labels[-1] + 1) % CLASSES
    assert score(right, samples, ENDS, accuracy("logits")) == pytest.approx(0.995)
