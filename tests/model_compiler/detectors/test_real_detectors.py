"""Detectors that others trained, from FOOTHILL_ASSETS: compiled by the command line, they find who walks there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from model_compiler.cli import app
from model_compiler.pack import read, read_measurements
from runtime.serving.engines.tensors import Array
from runtime.serving.models.golden import open_tested
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.placing import placed
from tests.runtime.serving.models.test_heads import iou

pytestmark = [pytest.mark.assets, pytest.mark.timeout(600)]

NANODET = "--colour bgr --scale 1 --mean 103.53,116.28,123.675 --std 57.375,57.12,58.395 --resize letterbox"
WALKS = ((100, "vtest.avi"), (400, "vtest.avi"))
RIDES = {120: ("person", (351, 10, 484, 269)), 240: ("bicycle", (253, 7, 598, 209))}
"""In frames of bikes.mp4: who and what two detectors agree on."""


class Real(NamedTuple):
    """How it is compiled."""

    head: str
    labels: str
    options: str


REAL = {
    "nanodet": Real("nanodet", "coco80", NANODET),
    "pedestrian_ssdlite": Real("ssd", "", "--size 300x300"),
    "ssd_mobilenet_v2_coco": Real("ssd", "coco90", "--size 300x300"),
}


EVERY = 3
"""Of the frames of vtest.avi: 265 pictures."""


@pytest.fixture(scope="module")
def assets() -> Path:
    return Path(os.environ["FOOTHILL_ASSETS"])


def frame(assets: Path, number: int, clip: str) -> Array:
    """rgb."""
    opened = cv2.VideoCapture(str(assets / "video" / clip))
    opened.set(cv2.CAP_PROP_POS_FRAMES, number)
    read_, picture = opened.read()
    assert read_
    return np.asarray(picture[..., ::-1].copy())


def found(loaded: LoadedModel, picture: Array, least: float) -> list[tuple[str, float, list[float]]]:
    """What is found with a score of `least`: label, score, box in pixels of the picture."""
    pre, manifest = loaded.manifest.preprocess, loaded.manifest
    assert pre is not None
    assert loaded.preprocessor is not None
    own = picture if pre.colour == "rgb" else np.ascontiguousarray(picture[..., ::-1])
    tensor = loaded.preprocessor.normalise(loaded.preprocessor.resize(own))
    (things,) = loaded.read(loaded.run({manifest.inputs[0].name: tensor})).found or ()
    boxes = placed(things.boxes, Size(picture.shape[1], picture.shape[0]), pre)
    each = zip(things.labels.tolist(), things.scores.tolist(), boxes.tolist(), strict=True)
    return [(manifest.labels[label], score, box) for label, score, box in each if score > least]


def compiled(assets: Path, out: Path, name: str, *options: str) -> None:
    real = REAL[name]
    (out / "person.txt").write_text("person\n")
    arguments = (
        f"--onnx {assets}/models/{name}.onnx --version 1 --target cpu-x86 --out {out} --head {real.head} "
        f"--labels {real.labels or out / 'person.txt'} {real.options}"
    )
    result = CliRunner().invoke(app, [*arguments.split(), *options])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", REAL)
def test_a_real_detector_is_compiled_and_finds_who_walks_there(name: str, assets: Path, tmp_path: Path) -> None:
    real = REAL[name]
    compiled(assets, tmp_path, name, "--name", "things")
    packed = read(tmp_path / "things@1")
    loaded = open_tested(packed.directory, packed.digest, target="cpu-x86", threads=1)
    for number, clip in WALKS:
        people = [box for label, _, box in found(loaded, frame(assets, number, clip), 0.5) if label == "person"]
        assert len(people) >= 2
        for left, top, right, bottom in people:
            assert 0 <= left < right <= 768
            assert 0 <= top < bottom <= 576
            assert 1.2 < (bottom - top) / (right - left) < 6.0  # upright
            assert 30 < bottom - top < 250
    for number, (label, where) in RIDES.items() if real.labels else ():
        there = [box for named, _, box in found(loaded, frame(assets, number, "bikes.mp4"), 0.3) if named == label]
        assert max(iou(np.array(box), np.array(where)) for box in there) > 0.7
    loaded.close()


def test_a_small_detector_is_certified_against_a_large_one_over_a_street(assets: Path, tmp_path: Path) -> None:
    """Frames of one video are not independent: this shows that the parts fit together, and certifies no street."""
    street = tmp_path / "street"
    street.mkdir()
    opened = cv2.VideoCapture(str(assets / "video" / "vtest.avi"))
    for number in range(int(opened.get(cv2.CAP_PROP_FRAME_COUNT))):
        read_, picture = opened.read()
        if read_ and number % EVERY == 0:
            assert cv2.imwrite(str(street / f"{number:03}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    compiled(assets, tmp_path, "ssd_mobilenet_v2_coco", "--name", "street-cloud", "--model", "street")
    certified = f"--cloud {tmp_path}/street-cloud@1 --calibration {street} --epsilon 0.05"
    compiled(assets, tmp_path, "pedestrian_ssdlite", "--name", "street-edge", "--model", "street", *certified.split())
    packed = read(tmp_path / "street-edge@1")
    (artifact,) = packed.manifest.artifacts
    rule, measured = artifact.confidence, read_measurements(packed).artifacts[artifact.file]
    assert rule is not None
    assert rule.feasible
    assert 100 < rule.n < 265
    assert measured.agreement is not None
    assert measured.agreement > 0.9
    assert measured.escalation is not None
    assert measured.escalation < 0.5
