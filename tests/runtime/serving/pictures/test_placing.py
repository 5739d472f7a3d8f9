"""Boxes find their way back into the picture that was sent."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.manifest import Preprocess
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.placing import placed
from runtime.serving.pictures.preprocess import Preprocessor

Resize = Literal["stretch", "letterbox", "crop"]
sizes = st.builds(Size, st.integers(64, 600), st.integers(64, 600))


def spec(size: Size, resize: Resize) -> Preprocess:
    return Preprocess(size.width, size.height, "grey", 1.0, (0.0,), (1.0,), resize)


@given(sizes, sizes, st.sampled_from(["stretch", "letterbox", "crop"]), st.integers(0, 3), st.integers(0, 3))
def test_a_bright_patch_is_where_its_box_is_placed(
    picture: Size, model: Size, resize: Resize, column: int, row: int
) -> None:
    """Through the very resizing that the model's picture is made by."""
    sent = np.zeros((picture.height, picture.width), np.uint8)
    left, top = picture.width * (column + 2) // 8, picture.height * (row + 2) // 8
    right, bottom = left + picture.width // 8, top + picture.height // 8
    sent[top:bottom, left:right] = 255
    pre = spec(model, resize)
    seen = Preprocessor(pre).resize(sent)
    rows, columns = np.nonzero(seen > 127)
    if len(rows) == 0 or (rows.min() == 0 or columns.min() == 0):
        return  # cut away by a crop
    if rows.max() == model.height - 1 or columns.max() == model.width - 1:
        return
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    found = placed(box, picture, pre)[0]
    slack = 1.5 * max(picture.width / model.width, picture.height / model.height, 1.0) + 1.0
    assert found == pytest.approx([left, top, right, bottom], abs=slack)


@given(sizes, sizes, st.sampled_from(["stretch", "letterbox", "crop"]))
def test_no_box_lies_outside_the_picture(picture: Size, model: Size, resize: Resize) -> None:
    boxes = np.array([[-50, -50, 9999, 9999], [0, 0, 1, 1]], np.float32)
    found = placed(boxes, picture, spec(model, resize))
    assert (found >= 0).all()
    assert (found[:, [0, 2]] <= picture.width).all()
    assert (found[:, [1, 3]] <= picture.height).all()
