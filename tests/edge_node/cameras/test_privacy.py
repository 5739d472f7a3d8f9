"""What is hidden cannot be seen again, and nothing else changes."""

from __future__ import annotations

import math

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.predictions import Box
from edge_node.cameras.privacy import LEVELS, MOST_CELLS, Polygon, PrivacyConfig, crop, hide
from runtime.serving.engines.tensors import Array

SHARES = st.floats(0, 1, allow_nan=False)
POLYGONS: st.SearchStrategy[Polygon] = st.lists(st.tuples(SHARES, SHARES), min_size=3, max_size=7).map(tuple)
SIZES = st.tuples(st.integers(1, 120), st.integers(1, 120))
LEFT: Polygon = ((0, 0), (0.5, 0), (0.5, 1), (0, 1))
BOXES = st.builds(
    Box, st.sampled_from(["face", "person", "plate"]), st.just(0.9), st.tuples(*[st.floats(-200, 200)] * 4)
)


def noise(size: tuple[int, int], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def far_inside_and_outside(size: tuple[int, int], polygon: Polygon) -> tuple[Array, Array]:
    """Pixels at least 1.5 from every side, by OpenCV's own measure and not by a mask."""
    corners = (np.array(polygon) * size[::-1] - 0.5).astype(np.float32)
    away = np.array([[cv2.pointPolygonTest(corners, (x, y), True) for x in range(size[1])] for y in range(size[0])])
    return away > 1.5, away < -1.5


@settings(max_examples=60)
@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), polygon=POLYGONS, how=st.sampled_from(["blur", "black"]))
def test_inside_nothing_is_left_and_outside_everything_is(size: tuple[int, int], polygon: Polygon, how: str) -> None:
    picture = noise(size)
    before = picture.copy()
    hidden = hide(picture, msgspec.convert({how: [polygon]}, PrivacyConfig))
    assert (picture == before).all()
    inside, outside = far_inside_and_outside(size, polygon)
    enclosed = _enclosed(size, polygon)
    assert (hidden[outside & ~enclosed] == picture[outside & ~enclosed]).all()
    if how == "black":
        assert (hidden[inside] == 0).all()
    else:
        same = (hidden == picture).all(axis=2)
        blocks = cv2.boxFilter((same & inside).astype(np.float32), -1, (3, 3), normalize=False)
        assert blocks.max(initial=0) < 9


def _enclosed(size: tuple[int, int], polygon: Polygon) -> Array:
    """What crossing sides enclose may be hidden too: what is within the polygon's hull is left out of the question."""
    hull = cv2.convexHull((np.array(polygon) * size[::-1] - 0.5).astype(np.float32))
    return np.array([[cv2.pointPolygonTest(hull, (x, y), False) >= 0 for x in range(size[1])] for y in range(size[0])])


@given(
    size=SIZES,
    blur=st.lists(POLYGONS, max_size=3),
    black=st.lists(POLYGONS, max_size=2),
    found=st.lists(BOXES, max_size=4),
)
def test_doing_it_again_changes_nothing(
    size: tuple[int, int], blur: list[Polygon], black: list[Polygon], found: list[Box]
) -> None:
    rules = PrivacyConfig(blur=tuple(blur), black=tuple(black), blur_labels=("face",), black_labels=("plate",))
    once = hide(noise(size), rules, found)
    assert (hide(once, rules, found) == once).all()


@given(size=SIZES, found=st.lists(BOXES, max_size=4), label=st.sampled_from(["face", "plate"]))
def test_boxes_of_named_labels_are_hidden_and_no_others(size: tuple[int, int], found: list[Box], label: str) -> None:
    picture = noise(size)
    hidden = hide(picture, PrivacyConfig(black_labels=(label,), margin=0.0), found)
    expected = picture.copy()
    for each in found:
        if each.label == label:
            (left, right), (top, bottom) = sorted(each.box[::2]), sorted(each.box[1::2])
            across = slice(max(0, math.floor(left)), max(0, math.ceil(right)))
            expected[max(0, math.floor(top)) : max(0, math.ceil(bottom)), across] = 0
    assert (hidden == expected).all()


@pytest.mark.parametrize("size", [(40, 40), (300, 200), (1080, 1920)])
def test_no_more_is_left_of_a_place_than_few_colours_in_few_levels(size: tuple[int, int]) -> None:
    """Two pictures whose cells have the same means in the same levels come out the same, whatever else is in them."""
    rules = PrivacyConfig(blur=(((0, 0), (1, 0), (1, 1), (0, 1)),))
    rng = np.random.default_rng(3)
    means = rng.integers(0, LEVELS, (MOST_CELLS, MOST_CELLS, 3)) * 16 + 8
    shown = []
    for _ in range(2):
        cells = cv2.resize(means.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int16)
        fine = rng.integers(-7, 8, (*size, 3))
        shown.append(hide((cells + fine).clip(0, 255).astype(np.uint8), rules))
    if size != (40, 40):
        assert (shown[0] == shown[1]).all()
    assert len(np.unique(shown[0][:: max(1, size[0] // 4), :: max(1, size[1] // 4)].reshape(-1, 3), axis=0)) <= 25


def test_no_edge_of_a_letter_is_left_in_blurred_text() -> None:
    letters = []
    for text in ("ABC 123", "XYZ 987", "KLM 456", "TUV 305"):
        picture = np.full((80, 320, 3), 255, np.uint8)
        cv2.putText(picture, text, (10, 60), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (0, 0, 0), 5)
        letters.append(picture)
    rules = PrivacyConfig(blur=(((0, 0), (1, 0), (1, 1), (0, 1)),))
    for picture in letters:
        edges = cv2.Laplacian(hide(picture, rules), cv2.CV_32F)
        assert np.abs(edges).max() < 0.05 * np.abs(cv2.Laplacian(picture, cv2.CV_32F)).max()


def test_black_wins_over_blur_and_takes_its_pixels_out_of_the_means() -> None:
    picture = np.full((100, 100, 3), 250, np.uint8)
    picture[:, :50] = 10
    hidden = hide(picture, PrivacyConfig(blur=(((0, 0), (1, 0), (1, 1), (0, 1)),), black=(LEFT,)))
    assert (hidden[:, :49] == 0).all()
    assert (hidden[:, 52:] == 248).all()


def test_what_crossing_sides_enclose_is_hidden_too() -> None:
    """A five-pointed star drawn in one go: its middle is enclosed twice, and by even-odd counting would be left."""
    points = [
        (0.5 + 0.45 * math.sin(4 * math.pi * n / 5), 0.5 - 0.45 * math.cos(4 * math.pi * n / 5)) for n in range(5)
    ]
    hidden = hide(noise((100, 100)), PrivacyConfig(black=(tuple(points),)))
    assert (hidden[45:55, 45:55] == 0).all()


def test_a_box_that_is_no_box_hides_everything() -> None:
    found = [Box("face", 0.5, (math.nan, 0.0, 1.0, 1.0))]
    assert (hide(noise((20, 20)), PrivacyConfig(black_labels=("face",)), found) == 0).all()


def test_without_rules_nothing_changes() -> None:
    picture = noise((20, 20))
    hidden = hide(picture, PrivacyConfig(), [Box("face", 0.5, (0, 0, 9, 9))])
    assert (hidden == picture).all()
    assert hidden is not picture


@pytest.mark.parametrize("polygon", [[], [[0, 0], [1, 1]], [[0, 0], [1, 0], [1, 1.1]], [[0, 0], [1, 0], [-0.1, 1]]])
def test_places_that_are_none_are_refused(polygon: list[list[float]]) -> None:
    with pytest.raises(msgspec.ValidationError, match="corners"):
        msgspec.convert({"blur": [polygon]}, PrivacyConfig)


@given(size=SIZES, box=st.tuples(*[st.floats(-300, 300)] * 4), margin=st.floats(0, 2))
def test_a_crop_is_part_of_the_picture(
    size: tuple[int, int], box: tuple[float, float, float, float], margin: float
) -> None:
    picture = noise(size)
    cut = crop(picture, box, margin).picture
    assert cut.size > 0
    assert np.shares_memory(cut, picture)


def test_a_crop_holds_the_box_and_its_margin() -> None:
    assert crop(noise((100, 100)), (20.0, 30.0, 40.0, 70.0), 0.1).picture.shape == (48, 24, 3)
    assert crop(noise((100, 100)), (20.2, 30.0, 39.9, 70.0)).picture.shape == (40, 20, 3)
    assert crop(noise((100, 100)), (90.0, 90.0, 140.0, 140.0)).picture.shape == (10, 10, 3)
