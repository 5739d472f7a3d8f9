"""From pictures to input tensors: sizes, proportions, colours, and the arithmetic of the manifest."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.manifest import Preprocess
from runtime.serving.pictures.images import JPEG, PNG
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.preprocess import INLINE_PIXELS, Preprocessor, glance, shrunk

Array = npt.NDArray[Any]
Resize = Literal["stretch", "letterbox", "crop"]


sizes = st.builds(Size, st.integers(1, 400), st.integers(1, 400))


def spec(
    width: int, height: int, resize: Resize = "stretch", colour: Literal["grey", "rgb", "bgr"] = "grey"
) -> Preprocess:
    channels = 1 if colour == "grey" else 3
    return Preprocess(width, height, colour, 1 / 255, (0.1, 0.2, 0.3)[:channels], (0.5, 0.25, 2.0)[:channels], resize)


def png(picture: Array) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


def test_the_tensor_is_the_scaled_pixel_minus_mean_over_std_per_channel() -> None:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    tensor = Preprocessor(spec(5, 6, colour="rgb")).tensor(png(rgb[:, :, ::-1]), PNG)
    expected = (rgb / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.25, 2.0])
    assert tensor.shape == (1, 3, 6, 5)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from(["stretch", "letterbox", "crop"]), st.sampled_from(["grey", "rgb"]),
)  # fmt: skip
def test_any_picture_becomes_exactly_the_models_size(
    width: int, height: int, to_width: int, to_height: int, resize: Resize, colour: Literal["grey", "rgb"]
) -> None:
    wanted = spec(to_width, to_height, resize, colour)
    picture = np.full((height, width, 3), 128, np.uint8)
    for name, media_type in ((".png", PNG), (".jpg", JPEG)):
        data = bytes(cv2.imencode(name, picture)[1])
        tensor = Preprocessor(wanted).tensor(data, media_type)
        assert tensor.shape == (1, 1 if colour == "grey" else 3, to_height, to_width)
        assert np.isfinite(tensor).all()


def test_a_letterbox_keeps_proportions_and_fills_with_grey() -> None:
    white = np.full((10, 20), 255, np.uint8)
    framed = Preprocessor(spec(8, 8, "letterbox")).resize(white)
    assert (framed[2:6] == 255).all()
    assert (framed[:2] == 114).all()
    assert (framed[6:] == 114).all()


def test_a_crop_keeps_the_middle() -> None:
    picture = np.zeros((4, 12), np.uint8)
    picture[:, 4:8] = 200
    assert (Preprocessor(spec(4, 4, "crop")).resize(picture) == 200).all()


def test_a_line_of_pixels_costs_no_more_memory_than_its_target() -> None:
    line = np.zeros((1, 40_000), np.uint8)
    for resize in ("stretch", "letterbox", "crop"):
        assert Preprocessor(spec(32, 32, resize)).tensor(png(line), PNG).shape == (1, 1, 32, 32)


def test_only_small_pictures_are_decoded_on_the_spot_and_too_large_ones_are_refused() -> None:
    side = int(INLINE_PIXELS**0.5)
    assert glance(png(np.zeros((side, side), np.uint8)), PNG) is not None
    assert glance(png(np.zeros((side, side + 1), np.uint8)), PNG) is None
    with pytest.raises(FoothillError, match="1 to 100 are taken"):
        glance(png(np.zeros((11, 11), np.uint8)), PNG, max_pixels=100)


@given(sizes, sizes, st.sampled_from(["stretch", "letterbox", "crop"]))
def test_what_is_shrunk_beforehand_needs_no_more_than_a_frame(have: Size, want: Size, resize: Resize) -> None:
    wanted = spec(want.width, want.height, resize, "rgb")
    told = shrunk(have, wanted)
    if told is None:
        return
    assert told.width <= have.width
    assert told.height <= have.height
    before = np.full((told.height, told.width, 3), 200, np.uint8)
    made = Preprocessor(wanted).resize(before)
    assert made.shape == (want.height, want.width, 3)
    assert np.count_nonzero((made == 200).all(axis=2)) == told.width * told.height


@pytest.mark.parametrize(
    ("have", "resize", "told"),
    [
        (Size(768, 576), "stretch", Size(300, 300)),
        (Size(768, 576), "letterbox", Size(300, 225)),
        (Size(768, 576), "crop", None),
        (Size(300, 300), "stretch", None),
        (Size(200, 400), "stretch", None),
    ],
)
def test_only_whole_pictures_that_become_smaller_are_shrunk(have: Size, resize: Resize, told: Size | None) -> None:
    assert shrunk(have, spec(300, 300, resize)) == told
