"""What a cheap camera makes of a digit: 8x8 scans become small, crooked, soft, noisy, dim JPEG pictures."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import simplejpeg

from model_compiler.data.samples import Floats, Labels, Pictures
from model_compiler.digits import splits

SIDE = 32
_GREYS_PER_LEVEL = 255.0 / 16.0
_CENTRE_OF_SCAN = 3.5
_CENTRE = (SIDE - 1) / 2
_KERNEL = (7, 7)

Range = tuple[float, float]


class Camera(msgspec.Struct, frozen=True):
    """The ranges that each picture's own conditions are drawn from, all uniform."""

    zoom: Range = (2.6, 3.6)
    shift_pixels: Range = (-4.0, 4.0)
    rotation_degrees: Range = (-15.0, 15.0)
    blur_sigma_pixels: Range = (0.3, 1.6)
    contrast: Range = (0.45, 1.0)
    brightness: Range = (0.0, 60.0)
    noise_sigma: Range = (4.0, 28.0)
    jpeg_quality: Range = (35.0, 90.0)


CAMERA = Camera()


class Frames(msgspec.Struct, frozen=True):
    """`images`: (n, 32, 32) uint8 as decoded; `jpeg` and `png` are bodies showing exactly those pixels."""

    images: Pictures
    jpeg: tuple[bytes, ...]
    png: tuple[bytes, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


def test_frames(n: int, seed: int) -> Frames:
    """`n` camera frames of digits of the test part, which no model, temperature or threshold has seen.

    Every test digit is drawn equally often, in an order of the seed's, each time as a new picture.
    """
    rng = np.random.default_rng(seed)
    part = splits.split(splits.load())["test"]
    rounds = -(-n // len(part))
    rows = np.concatenate([rng.permutation(len(part)) for _ in range(rounds)])[:n]
    digits = part.take(rows)
    jpeg = shoot_jpeg(digits.pictures, rng)
    images = decode(jpeg)
    png = tuple(cv2.imencode(".png", image)[1].tobytes() for image in images)
    return Frames(images, jpeg, png, digits.labels)


def shoot(pictures: Floats, rng: np.random.Generator, camera: Camera = CAMERA) -> Pictures:
    """One camera frame of each scan (n, 8, 8) in 0..16, JPEG-coded once: (n, 32, 32) uint8."""
    return decode(shoot_jpeg(pictures, rng, camera))


def shoot_jpeg(pictures: Floats, rng: np.random.Generator, camera: Camera = CAMERA) -> tuple[bytes, ...]:
    """As `shoot`, but the JPEG bytes that the camera sends."""
    count = len(pictures)
    contrast = rng.uniform(*camera.contrast, (count, 1, 1)).astype(np.float32)
    brightness = rng.uniform(*camera.brightness, (count, 1, 1)).astype(np.float32)
    noise = rng.standard_normal((count, SIDE, SIDE), np.float32)
    noise *= rng.uniform(*camera.noise_sigma, (count, 1, 1)).astype(np.float32)
    seen = _optics(pictures, rng, camera) * contrast + brightness + noise
    sensed = np.clip(seen, 0, 255).astype(np.uint8)[..., None]
    qualities = rng.uniform(*camera.jpeg_quality, count).astype(int).tolist()
    return tuple(
        simplejpeg.encode_jpeg(picture, quality=quality, colorspace="GRAY")
        for picture, quality in zip(sensed, qualities, strict=True)
    )


def decode(jpeg: tuple[bytes, ...]) -> Pictures:
    """(n, 32, 32) uint8."""
    return np.stack([simplejpeg.decode_jpeg(data, colorspace="GRAY")[:, :, 0] for data in jpeg])


def clean(pictures: Floats) -> Pictures:
    """The scans (n, 8, 8) scaled up and nothing else: (n, 32, 32) uint8."""
    scaled = [cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for picture in _greys(pictures)]
    return np.asarray(np.clip(np.stack(scaled), 0, 255), np.uint8)


def _optics(pictures: Floats, rng: np.random.Generator, camera: Camera) -> Floats:
    """Zoomed, rotated and shifted in one affine step, then blurred: (n, 32, 32) float32 in 0..255."""
    blurs = rng.uniform(*camera.blur_sigma_pixels, len(pictures)).tolist()
    seen = np.empty((len(pictures), SIDE, SIDE), np.float32)
    for index, (picture, pose) in enumerate(zip(_greys(pictures), _poses(len(pictures), rng, camera), strict=True)):
        placed = cv2.warpAffine(picture, pose, (SIDE, SIDE), flags=cv2.INTER_CUBIC)
        cv2.GaussianBlur(placed, _KERNEL, blurs[index], dst=seen[index])
    return np.asarray(np.clip(seen, 0, 255), np.float32)


def _poses(count: int, rng: np.random.Generator, camera: Camera) -> npt.NDArray[np.float64]:
    """Affine maps (n, 2, 3) from scan to frame coordinates, about both centres."""
    zoom = rng.uniform(*camera.zoom, count)
    angle = np.deg2rad(rng.uniform(*camera.rotation_degrees, count))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    shift = rng.uniform(*camera.shift_pixels, (count, 2)) + _CENTRE - turn.sum(axis=2) * _CENTRE_OF_SCAN
    return np.concatenate([turn, shift[:, :, None]], axis=2)


def _greys(pictures: Floats) -> Floats:
    return np.asarray(pictures * np.float32(_GREYS_PER_LEVEL), np.float32)
