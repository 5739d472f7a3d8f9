"""Heads of detectors: known boxes come out of outputs that were made for them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from runtime.serving.models import postprocess
from runtime.serving.models.found import Found
from runtime.serving.models.heads import found_in
from runtime.serving.models.nms import suppressed
from tests.runtime.serving.models.detectors import BOXES, LABELS, SCORES, manifest_of, outputs_for

KINDS = ["yolov8", "yolov8-rows", "yolov5", "yolo-sigmoid", "ssd", "ssd-scores", "nanodet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_gives_the_boxes_that_went_in(kind: str) -> None:
    (found,) = found_in(outputs_for(kind), manifest_of(kind))
    order = np.argsort(-SCORES)
    assert found.labels.tolist() == LABELS[order].tolist()
    assert found.scores == pytest.approx(SCORES[order], abs=1e-4)
    assert found.boxes == pytest.approx(BOXES[order], abs=0.6)
    assert [str(array.dtype) for array in found] == ["float32", "float32", "int32"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_where_nothing_is_sure_enough_and_every_row_is_read(kind: str) -> None:
    outputs = outputs_for(kind)
    empty = outputs_for(kind, scores=SCORES * 0.1)
    both = {name: np.concatenate([outputs[name], empty[name]]) for name in outputs}
    first, second = found_in(both, manifest_of(kind))
    assert (len(first.boxes), len(second.boxes)) == (len(BOXES), 0)


def test_the_best_of_those_that_overlap_stays_and_at_most_so_many() -> None:
    boxes = np.array([[10, 10, 50, 50], [12, 12, 52, 52], [100, 100, 150, 150]], np.float32)
    scores, labels = np.array([0.6, 0.9, 0.5], np.float32), np.array([1, 1, 2])

    def found(**changes: Any) -> Found:
        outputs = outputs_for("yolov8", boxes=boxes, scores=scores, labels=labels)
        return found_in(outputs, manifest_of("yolov8", **changes))[0]

    assert found().scores == pytest.approx([0.9, 0.5], abs=1e-4)
    assert len(found(iou_threshold=1.0).boxes) == 3
    assert len(found(max_objects=1).boxes) == 1
    assert len(found(score_threshold=0.55).boxes) == 1


def test_classes_overlap_each_other_unless_they_are_one_to_the_head() -> None:
    boxes = np.array([[10, 10, 50, 50], [10, 10, 50, 50]], np.float32)
    outputs = outputs_for("yolov8", boxes=boxes, scores=np.array([0.9, 0.8], np.float32), labels=np.array([0, 1]))
    assert len(found_in(outputs, manifest_of("yolov8"))[0].boxes) == 2
    assert len(found_in(outputs, manifest_of("yolov8", class_agnostic=True))[0].boxes) == 1


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in outputs_for(kind)])
def test_what_is_no_number_in_any_output_of_a_head_is_refused(kind: str, name: str) -> None:
    outputs = outputs_for(kind)
    postprocess.check_numbers(outputs, postprocess.nothing(()).of(0), manifest_of(kind), from_tensors=False)
    outputs[name] = np.full_like(outputs[name], np.nan)
    with pytest.raises(FoothillError, match="no numbers"):
        postprocess.check_numbers(outputs, postprocess.nothing(()).of(0), manifest_of(kind), from_tensors=False)


boxes_of = st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=1, max_size=150)


@given(boxes_of, st.floats(0.05, 0.95), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_of_two_boxes_that_stay_none_overlaps_the_other_and_the_best_stays(
    told: list[tuple[int, int, int, int]], threshold: float, seed: int, most: int
) -> None:
    boxes = np.array([(x, y, x + w + 1, y + h + 1) for x, y, w, h in told], np.float32)
    groups = np.random.default_rng(seed).integers(0, 2, len(boxes))
    keep = suppressed(boxes, groups, threshold)
    assert keep[0] == 0
    assert keep.tolist() == sorted(set(keep.tolist()))
    plain: list[int] = []
    for at in range(len(boxes)):
        if all(groups[at] != groups[other] or iou(boxes[at], boxes[other]) <= threshold for other in plain):
            plain.append(at)
    assert keep.tolist() == plain
    assert suppressed(boxes, groups, threshold, most).tolist() == plain[:most]


def test_a_thousand_candidates_are_sorted_out_in_a_few_milliseconds() -> None:
    corners = np.random.default_rng(0).uniform(0, 3000, (1000, 2))
    boxes = np.concatenate([corners, corners + 40], axis=1).astype(np.float32)
    groups, taken_s = np.zeros(1000, np.int64), []
    for _ in range(5):
        started_s = time.perf_counter()
        suppressed(boxes, groups, 0.5, 300)
        taken_s.append(time.perf_counter() - started_s)
    assert min(taken_s) < 0.010


def test_what_is_background_takes_no_place_among_the_best() -> None:
    count = 1200
    boxes = np.tile(np.array([[0.1, 0.1, 0.2, 0.2]], np.float32), (count, 1))
    scores, labels = np.full(count, 0.9, np.float32), np.zeros(count, np.float32)
    scores[-1], labels[-1] = 0.5, 3
    outputs = {"boxes": boxes[None], "scores": scores[None], "classes": labels[None]}
    (found,) = found_in(outputs, manifest_of("ssd"))
    assert found.labels.tolist() == [2]


def iou(one: Any, other: Any) -> float:
    edges = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.maximum(edges, 0).prod())
    return common / (float((one[2:] - one[:2]).prod()) + float((other[2:] - other[:2]).prod()) - common)


def test_manifests_without_a_detector_keep_their_bytes() -> None:
    from contracts.manifest import encode
    from tests.runtime.serving.models.detectors import plain_manifest

    told = encode(plain_manifest())
    assert b"detector" not in told
    assert b"layout" not in told
