"""What the simulated camera sends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import simplejpeg

from model_compiler.digits import camera, splits


def test_the_same_seed_shoots_the_same_frames() -> None:
    first, second = camera.test_frames(40, seed=3), camera.test_frames(40, seed=3)
    assert first.jpeg == second.jpeg
    assert first.png == second.png
    assert np.array_equal(first.labels, second.labels)
    assert camera.test_frames(40, seed=4).jpeg != first.jpeg


def test_a_shorter_run_of_frames_has_the_asked_length() -> None:
    for count in (1, 341, 343):
        frames = camera.test_frames(count, seed=0)
        assert len(frames) == len(frames.jpeg) == len(frames.png) == len(frames.images) == count


def test_jpeg_png_and_array_show_the_same_picture() -> None:
    frames = camera.test_frames(50, seed=1)
    for image, jpeg, png in zip(frames.images, frames.jpeg, frames.png, strict=True):
        assert np.array_equal(simplejpeg.decode_jpeg(jpeg, colorspace="GRAY")[:, :, 0], image)
        assert np.array_equal(np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)), image)
    assert frames.images.shape == (50, 32, 32)
    assert frames.images.dtype == np.uint8


def test_every_test_digit_is_drawn_equally_often_each_time_anew() -> None:
    test = splits.split(splits.load())["test"]
    frames = camera.test_frames(2 * len(test), seed=5)
    assert np.array_equal(np.bincount(frames.labels), 2 * np.bincount(test.labels))
    assert len(set(frames.jpeg)) == len(frames)


def test_frames_keep_their_digit_but_differ_from_the_clean_scan() -> None:
    part = splits.split(splits.load())["train"]
    clean = camera.clean(part.pictures).astype(np.float64)
    still = camera.Camera(
        zoom=(4.0, 4.0),
        shift_pixels=(0.0, 0.0),
        rotation_degrees=(0.0, 0.0),
        blur_sigma_pixels=(0.3, 0.3),
        contrast=(1.0, 1.0),
        brightness=(0.0, 0.0),
        noise_sigma=(0.0, 0.0),
        jpeg_quality=(95.0, 95.0),
    )
    seen_still = camera.shoot(part.pictures, np.random.default_rng(0), still).astype(np.float64)
    seen = camera.shoot(part.pictures, np.random.default_rng(0)).astype(np.float64)
    assert np.abs(seen_still - clean).mean() < 5
    assert np.abs(seen - clean).mean() > 30


@pytest.mark.parametrize("field", camera.Camera.__struct_fields__)
def test_every_condition_of_the_camera_matters(field: str) -> None:
    """Each range alone changes the frames: none is read and forgotten."""
    pictures = splits.load().pictures[:20]
    low, high = getattr(camera.CAMERA, field)
    settings = {name: getattr(camera.CAMERA, name) for name in camera.Camera.__struct_fields__}
    changed = camera.Camera(**{**settings, field: (low, low + (high - low) / 10)})
    usual = camera.shoot_jpeg(pictures, np.random.default_rng(0))
    assert camera.shoot_jpeg(pictures, np.random.default_rng(0), changed) != usual
