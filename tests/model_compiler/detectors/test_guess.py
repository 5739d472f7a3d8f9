"""What the outputs of a detector tell of its head is found out; what they do not tell has to be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.manifest import DetectorKind, Preprocess
from model_compiler.detectors.guess import Asked, Head, head_of
from model_compiler.detectors.told import Told
from model_compiler.errors import CompileError
from model_compiler.label_lists import COCO80, COCO90
from runtime.serving.engines.tensors import Array
from tests.runtime.serving.models.detectors import NAMES, SIDE, manifest_of, outputs_for

PRE = Preprocess(SIDE, SIDE, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3)
KINDS: dict[str, tuple[DetectorKind, dict[str, Any]]] = {
    "yolov8": ("yolo", {}),
    "yolov8-rows": ("yolo", {}),
    "yolov5": ("yolo", {}),
    "yolo-sigmoid": ("yolo", {}),
    "ssd": ("ssd", {"box": "yxyx", "first_class": 1}),
    "ssd-scores": ("ssd", {"box": "xyxy"}),
    "nanodet": ("nanodet", {}),
}


def guess(kind: DetectorKind, seen: Mapping[str, Array], labels: tuple[str, ...] = NAMES, **told: Any) -> Head:
    return head_of(Asked(Path("model.onnx"), Told(kind, told), seen, labels, PRE))


def refused(kind: DetectorKind, seen: Mapping[str, Array], labels: tuple[str, ...] = NAMES, **told: Any) -> str:
    with pytest.raises(CompileError) as error:
        guess(kind, seen, labels, **told)
    return str(error.value)


@pytest.mark.parametrize("made", KINDS)
def test_the_head_that_outputs_were_made_for_is_found_out(made: str) -> None:
    kind, told = KINDS[made]
    head = guess(kind, outputs_for(made), **told)
    wanted = manifest_of(made).postprocess
    assert wanted.detector is not None
    assert head.outputs[0] == wanted.output
    fields = (
        *("boxes", "scores", "classes", "strides", "reg_max", "box", "normalised"),
        *("objectness", "anchors_last", "activation", "first_class"),
    )
    found, made_for = ({field: getattr(each, field) for field in fields} for each in (head.detector, wanted.detector))
    assert found == made_for


def test_what_is_told_is_not_guessed_and_what_is_guessed_is_said() -> None:
    head = guess("yolo", outputs_for("yolov8"), box="xyxy", score_threshold=0.1)
    assert (head.detector.box, head.detector.score_threshold) == ("xyxy", 0.1)
    assert head.guessed == (
        "anchors_last = true",
        "objectness = false",
        'activation = "none"',
        "normalised = false",
    )


def test_tensorflows_detectors_are_known_by_the_names_of_their_outputs() -> None:
    made = outputs_for("ssd")
    seen = {f"detection_{name}:0": array for name, array in made.items()}
    seen["num_detections:0"] = np.array([3.0], np.float32)
    head = guess("ssd", seen, COCO90)
    assert head.outputs == ("detection_boxes:0", "detection_scores:0", "detection_classes:0")
    detector = head.detector
    assert (detector.box, detector.normalised, detector.first_class, detector.iou_threshold) == ("yxyx", True, 1, 1.0)
    assert "number COCO's classes 1 to 90. Give --labels coco90" in refused("ssd", seen, COCO80)
    assert (len(COCO80), len(COCO90), COCO90[89], COCO80[79]) == (80, 90, "toothbrush", "toothbrush")
    assert (COCO90[2], COCO90[11], COCO90[12], COCO80[11]) == ("car", "unused-12", "stop sign", "stop sign")


def square(*shape: int) -> dict[str, Array]:
    return {"out": np.full(shape, 0.5, np.float32)}


NANODET = outputs_for("nanodet")


@pytest.mark.parametrize(
    ("kind", "seen", "labels", "why"),
    [
        ("yolo", square(1, 8, 8), NAMES, "Write anchors_last = … into a TOML file that begins with kind = \"yolo\""),
        ("yolo", square(1, 8, 20), (), "without --labels nobody knows how many of them are classes. Write objectness"),
        ("yolo", square(1, 300, 6), NAMES, "six are those of an export with suppression in it"),
        ("yolo", {**square(1, 8, 20), "more": np.zeros((1, 8, 20))}, NAMES, "Write output = …"),
        ("yolo", square(1, 8), NAMES, "a yolo has one output [rows, anchors, values], and its are out [rows, 8]"),
        ("ssd", outputs_for("ssd"), NAMES, "in which order the sides of a box come cannot be told"),
        ("ssd", square(1, 8, 5), NAMES, "its boxes are one of out [rows, 8, 5]"),
        ("nanodet", {**NANODET, "boxes-8": NANODET["scores-8"]}, NAMES, "which of its outputs are scores"),
        ("nanodet", square(1, 8, 20), NAMES, "no grid over 128x128 pixels"),
        ("nanodet", NANODET, NAMES[:2], "which of its outputs are scores cannot be told"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_asked_for_by_its_key(
    kind: DetectorKind, seen: dict[str, Array], labels: tuple[str, ...], why: str
) -> None:
    assert why in refused(kind, seen, labels)


def test_scores_beyond_shares_before_a_softmax_are_not_guessed() -> None:
    seen = outputs_for("ssd-scores")
    seen["scores"] = seen["scores"] * 10 - 5
    assert "what makes shares of them is not known. Write activation = …" in refused("ssd", seen, box="xyxy")
    assert guess("ssd", seen, box="xyxy", activation="sigmoid").detector.activation == "sigmoid"


def test_classes_of_boxes_that_are_sorted_out_already_count_from_where_the_user_says() -> None:
    assert "whether classes count from 0 or from 1" in refused("ssd", outputs_for("ssd"), box="xyxy")
    assert guess("ssd", outputs_for("ssd"), box="xyxy", first_class=0).detector.first_class == 0


def test_an_output_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert "has no output 'gone'. It has boxes, scores, classes." in refused("ssd", outputs_for("ssd"), boxes=("gone",))


def test_labels_are_as_many_as_classes() -> None:
    assert "scores-8 has 4 classes, and there are 2 labels" in refused(
        "nanodet", NANODET, NAMES[:2], scores=("scores-8", "scores-16")
    )
