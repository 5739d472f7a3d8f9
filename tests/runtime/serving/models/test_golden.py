"""The golden test passes on the machine that made it, and names what differs where it does not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import FoothillError
from contracts.manifest import Detector, Postprocess
from runtime.serving.engines.opening import Opening
from runtime.serving.models.golden import GoldenMismatch, check_golden, open_tested
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import (
    MODEL_FILE,
    TARGET,
    make_classifier,
    make_detector,
    make_echo,
    make_lookup,
)
from tests.runtime.serving.conftest import Load

GOLDEN = f"golden/{MODEL_FILE}/logits.npy"


def reopened(directory: Path, digest: str) -> LoadedModel:
    return LoadedModel.open(directory, digest, target=TARGET, threads=1)


@pytest.mark.parametrize("factory", [make_classifier, make_lookup, make_echo, partial(make_echo, datatypes=["BF16"])])
def test_a_bundle_passes_where_it_was_made(load: Load, factory: object) -> None:
    loaded = load(factory)
    check_golden(loaded)
    loaded.close()


def test_what_opening_took_is_told_step_by_step(load: Load) -> None:
    made = load()
    ticks = iter([100.0, 100.5, 101.5, 104.0])
    opened = open_tested(made.directory, made.digest, target=TARGET, threads=1, clock=lambda: next(ticks))
    assert opened.opening == Opening(load_s=0.5, first_answer_s=1.5, warm_up_s=2.5)
    assert opened.opening.whole_s == 4.0
    assert str(opened.opening) == "loaded in 0.500 s, first answer after 1.500 s, warm-up 2.500 s"
    opened.close()
    made.close()


def test_more_golden_rows_than_a_batch_are_run_in_slices(load: Load) -> None:
    loaded = load(max_batch=2)
    check_golden(loaded)
    loaded.close()


def test_an_error_beyond_the_tolerance_is_named_with_its_size(load: Load) -> None:
    loaded = load(golden_error=0.25)
    with pytest.raises(GoldenMismatch, match=r"tensor 'logits' is off by up to 0\.25.* \(atol 0.0001") as refused:
        check_golden(loaded)
    assert refused.value.code == "bad_bundle"
    assert isinstance(refused.value, FoothillError)
    loaded.close()


def test_other_labels_fail_even_within_the_tolerance(load: Load) -> None:
    loaded = load(make_lookup, golden_scale=-1.0, golden_atol=1e9)
    with pytest.raises(GoldenMismatch, match=r"top labels of 'logits' agree in 0\.00% of rows, not 100\.00%"):
        check_golden(loaded)
    loaded.close()


@pytest.mark.parametrize("kind", ["tensors", "logits"])
def test_tensors_that_are_no_scores_of_classes_are_compared_as_numbers_alone(load: Load, kind: str) -> None:
    """Within the tolerance the largest value of a row may be another one; only of classes is it an answer."""
    head = Postprocess("y_FP32", kind)  # type: ignore[arg-type]
    options = {"datatypes": ("FP32",), "task": "detection", "golden_scale": -1.0, "golden_atol": 1e9}
    loaded = load(make_echo, postprocess=head, **options)
    if kind == "tensors":
        check_golden(loaded)
    else:
        with pytest.raises(GoldenMismatch, match="top labels of 'y_FP32'"):
            check_golden(loaded)
    loaded.close()


def test_every_tensor_of_an_answer_of_tensors_is_compared(load: Load) -> None:
    loaded = load(
        make_echo, datatypes=("FP32", "INT32"), task="detection", postprocess=Postprocess("y_FP32", "tensors")
    )
    check_golden(loaded)
    np.save(loaded.directory / f"golden/{MODEL_FILE}/y_INT32.npy", np.array([[0, 2]], np.int32))
    with pytest.raises(GoldenMismatch, match="tensor 'y_INT32' is off by up to 1"):
        check_golden(loaded)
    loaded.close()


def test_a_tensor_that_is_no_number_must_be_the_same(load: Load) -> None:
    loaded = load(make_echo, datatypes=("FP32", "BOOL"), task="detection", postprocess=Postprocess("y_FP32", "tensors"))
    file = loaded.directory / f"golden/{MODEL_FILE}/y_BOOL.npy"
    right = np.load(file)
    wrong = right.copy()
    wrong.flat[0] = not wrong.flat[0]
    np.save(file, wrong)
    with pytest.raises(GoldenMismatch, match=f"tensor 'y_BOOL' is not what it should be in 1 of {right.size}"):
        check_golden(loaded)
    loaded.close()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 9), np.float32), r"is float32 \[3, 10\], expected float32 \[3, 9\]"),
        (np.zeros((3, 10), np.float64), "expected float64"),
        (np.full((3, 10), np.nan, np.float32), "is off by up to nan"),
    ],
)
def test_another_shape_or_type_or_no_number_fails(tmp_path: Path, array: np.ndarray, says: str) -> None:
    digest = make_classifier(tmp_path)
    np.save(tmp_path / GOLDEN, array)
    loaded = reopened(tmp_path, digest)
    with pytest.raises(GoldenMismatch, match=says):
        check_golden(loaded)
    loaded.close()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00\x02\x00{}"])
def test_a_golden_file_that_is_no_array_is_named(tmp_path: Path, content: bytes) -> None:
    digest = make_classifier(tmp_path)
    (tmp_path / GOLDEN).write_bytes(content)
    loaded = reopened(tmp_path, digest)
    with pytest.raises(GoldenMismatch, match=r"logits\.npy is no array file"):
        check_golden(loaded)
    loaded.close()


def test_golden_files_never_run_code(tmp_path: Path) -> None:
    digest = make_classifier(tmp_path)
    np.save(tmp_path / GOLDEN, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    loaded = reopened(tmp_path, digest)
    with pytest.raises(GoldenMismatch, match="no array file"):
        check_golden(loaded)
    loaded.close()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": ("block", "ball")}, r"needs output 'out' with 6 at axis 1: there are 2 labels"),
        (
            {"postprocess": Postprocess("out", "yolo", Detector(objectness=True, anchors_last=True)), "labels": ()},
            "more than 5 at axis 1",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_the_golden_outputs_where_the_manifest_leaves_them_open(
    load: Load, changes: dict[str, Any], told: str
) -> None:
    loaded = load(make_detector, untold=True, **changes)
    with pytest.raises(FoothillError, match=told) as refused:
        check_golden(loaded)
    assert refused.value.code == "bad_bundle"
    loaded.close()
    with pytest.raises(FoothillError, match=told):
        load(make_detector, **changes)
