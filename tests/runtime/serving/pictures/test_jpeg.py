"""JPEG files out of pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from runtime.serving.pictures import jpeg
from runtime.serving.pictures.picture import Size


@pytest.mark.parametrize("colour", ["bgr", "rgb", "grey"])
def test_a_picture_survives_jpeg_and_quality_costs_bytes(colour: str) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    picture = cv2.resize(rough, (64, 48), interpolation=cv2.INTER_CUBIC)[4:40, 8:60]
    given = picture[:, :, 0] if colour == "grey" else picture
    fine, coarse = (jpeg.encode(given, colour, quality) for quality in (95, 20))
    back = jpeg.decode(fine, colour, Size(0, 0))
    assert back.shape == given.shape
    assert np.abs(back.astype(int) - given).mean() < 8
    assert len(coarse) < len(fine)
    assert jpeg.read_head(fine).size == Size(52, 36)
