"""The options of `foothill compile --onnx`: read as they were meant, or refused by name with what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.boards import BOARDS
from model_compiler.confidence import Promise
from model_compiler.errors import CompileError
from model_compiler.from_onnx import OnnxRequest, Pictures
from model_compiler.onnx_options import OnnxOptions, request_of

TYPED = OnnxOptions(
    onnx=Path("model.onnx"),
    name="detector",
    version="1.2.3",
    targets=("cpu-x86",),
    model="",
    calibration=None,
    kind="",
    labels=None,
    colour="rgb",
    scale=1 / 255,
    mean="0",
    std="1",
    size="",
    resize="stretch",
    max_drop=None,
)
CERTIFIED = {"head": "yolo", "cloud": Path("big@1"), "calibration": Path("pictures")}


def typed(**changes: Any) -> OnnxRequest:
    return request_of(msgspec.structs.replace(TYPED, **changes))


def refused(**changes: Any) -> str:
    with pytest.raises(CompileError) as error:
        typed(**changes)
    return str(error.value)


def test_what_was_not_typed_is_left_to_the_file() -> None:
    assert typed() == OnnxRequest(Path("model.onnx"), "detector", "1.2.3", ("cpu-x86",))


def test_what_was_typed_is_what_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("\ufeffant eater\r\n\n  bee \nbee\n".encode())
    found = typed(
        targets=["cpu-arm", "rtx-sm89", "cpu-arm"], model="insects", kind="vector", labels=tmp_path / "labels.txt",
        colour="bgr", scale=1.0, mean="103.5, -116.2,1e2", std="57.4,57.1,58.4", size="320x240", resize="crop",
        max_drop=0.0, calibration=tmp_path,
    )  # fmt: skip
    assert (found.targets, found.model, found.kind) == (("cpu-arm", "rtx-sm89"), "insects", "vector")
    assert found.labels == ("ant eater", "bee", "bee")
    assert found.pictures == Pictures("bgr", 1.0, (103.5, -116.2, 100.0), (57.4, 57.1, 58.4), "crop", (320, 240))
    assert (found.max_drop_points, found.calibration) == (0.0, tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "--name is missing"),
        ({"name": "My Model"}, "--name 'My Model': write lower-case letters"),
        ({"model": "A"}, "--model 'A': write lower-case letters"),
        ({"version": ""}, "--version is missing"),
        ({"version": "v1"}, "--version 'v1': write numbers with dots"),
        ({"targets": ()}, f"--target is missing. Name one or more of {', '.join(BOARDS)}."),
        ({"targets": ("cpu-x86", "cpu-x87")}, "--target 'cpu-x87' is unknown. Use one of cpu-x86, "),
        ({"kind": "boxes"}, "--kind 'boxes' is unknown. Use one of logits, "),
        ({"colour": "RGB"}, "--colour 'RGB' is unknown. Use one of rgb, bgr, grey."),
        ({"resize": "pad"}, "--resize 'pad' is unknown. Use one of stretch, "),
        ({"mean": "0.5;0.5"}, "--mean '0.5;0.5': write numbers with commas"),
        ({"std": ""}, "--std '': write numbers with commas"),
        ({"std": "1,"}, "--std '1,': write numbers with commas"),
        ({"max_drop": -0.1}, "--max-drop -0.1: write points from 0 to 100."),
        ({"max_drop": float("nan")}, "--max-drop nan: write points"),
        ({"labels": Path("/nowhere")}, "--labels /nowhere cannot be read (No such file or directory)"),
        ({"labels": Path("/")}, "--labels / cannot be read (Is a directory)"),
        ({"cloud": Path("big@1")}, "--cloud goes with --head. Any other model is certified by a recipe"),
        ({"head": "yolo", "calibration": Path()}, "--head and --calibration go together with --cloud alone"),
        ({"head": "yolo", "cloud": Path("big@1")}, "--cloud needs --calibration DIR"),
        ({"head": "yolo", "delta": 0.1}, "--delta goes with --cloud"),
        ({**CERTIFIED, "epsilon": 1.0}, "--epsilon 1.0: write a share between 0 and 1."),
        ({**CERTIFIED, "delta": float("nan")}, "--delta nan: write a share between 0 and 1."),
        ({**CERTIFIED, "max_escalation": 0.0}, "--max-escalation 0.0: write a share above 0, at most 1."),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_option(changes: dict[str, Any], told: str) -> None:
    assert refused(**changes).startswith(told)


def test_a_promise_is_what_was_typed_and_else_the_usual_one() -> None:
    assert typed(**CERTIFIED).promise == Promise() == typed().promise
    assert typed(**CERTIFIED, epsilon=0.1, delta=0.01, max_escalation=1.0).promise == Promise(0.1, 0.01, 1.0)
    assert typed(**CERTIFIED).cloud == Path("big@1")


def test_labels_that_are_no_text_or_none_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels").write_bytes(b"ant\n\xff\xfe\n")
    assert "labels cannot be read (invalid start byte). Give a text file" in refused(labels=tmp_path / "labels")
    (tmp_path / "labels").write_text("\n \n")
    assert "labels holds no label. Give a text file" in refused(labels=tmp_path / "labels")


@given(st.integers(0, 9000), st.integers(0, 1000))
def test_a_size_is_width_before_height(width: int, height: int) -> None:
    assert typed(size=f"{width}x{height}").pictures.size == (width, height)


def test_a_size_that_no_picture_has_is_refused_before_room_is_taken_for_it() -> None:
    assert "that is more than" in refused(size="999999x999999")


@pytest.mark.parametrize(
    "size", ["224", "224x", "x224", "224X224", "2 x 2", "-1x2", "1.5x2", "1x2x3", "²x2", "9" * 5000 + "x1"]
)
def test_a_size_of_any_other_form_is_refused(size: str) -> None:
    assert refused(size=size).endswith("write WIDTHxHEIGHT in pixels, such as 224x224.")
