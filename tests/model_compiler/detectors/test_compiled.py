"""`foothill compile --onnx FILE --head …` makes bundles that nodes open, and that find what the file finds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto
from typer.testing import CliRunner, Result

from contracts.manifest import Manifest, Preprocess
from model_compiler.cli import app
from model_compiler.pack import Packed, read
from runtime.serving.engines.tensors import Array
from runtime.serving.models.found import Found
from runtime.serving.models.golden import open_tested
from tests.model_compiler.detectors.graphs import constant_detector
from tests.runtime.serving.bundle_factory import MODEL_FILE, make_detector
from tests.runtime.serving.models.detectors import BOXES, LABELS, NAMES, SCORES, SIDE, outputs_for

pytestmark = pytest.mark.integration


def compiled(tmp_path: Path, onnx: Path, *options: str | Path, labels: tuple[str, ...] = NAMES) -> Result:
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    told = ["--onnx", onnx, "--name", "things", "--version", "1", "--target", "cpu-x86", "--labels"]
    arguments = [*told, tmp_path / "labels.txt", "--out", tmp_path, *options]
    return CliRunner().invoke(app, [str(each) for each in arguments])


def opened(tmp_path: Path, picture: Array) -> tuple[Manifest, Found]:
    packed: Packed = read(tmp_path / "things@1")
    loaded = open_tested(packed.directory, packed.digest, target="cpu-x86", threads=1)
    assert loaded.preprocessor is not None
    inputs = {loaded.manifest.inputs[0].name: loaded.preprocessor.normalise(loaded.preprocessor.resize(picture))}
    (found,) = loaded.read(loaded.run(inputs)).found or ()
    loaded.close()
    return packed.manifest, found


BLANK = np.zeros((SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize(
    ("made", "head", "more"),
    [
        ("yolov5", "yolo", ""),
        ("yolo-sigmoid", "yolo", "score_threshold = 0.1"),
        ("nanodet", "nanodet", ""),
        ("ssd-scores", "ssd", 'box = "xyxy"'),
    ],
)
def test_a_file_with_a_head_becomes_a_bundle_that_finds_the_same(
    tmp_path: Path, made: str, head: str, more: str
) -> None:
    path = constant_detector(tmp_path / "model.onnx", outputs_for(made))
    (tmp_path / "head.toml").write_text(f'kind = "{head}"\n{more}\n')
    result = compiled(tmp_path, path, "--head", tmp_path / "head.toml" if more else head)
    assert result.exit_code == 0, result.output
    assert f"Head {head}. Found out from the file: " in result.output
    manifest, found = opened(tmp_path, BLANK)
    order = np.argsort(-SCORES)
    assert found.boxes == pytest.approx(BOXES[order], abs=0.6)
    assert found.labels.tolist() == LABELS[order].tolist()
    assert (manifest.task, manifest.labels, manifest.max_batch) == ("detection", NAMES, 1)
    assert [each.file for each in manifest.artifacts] == ["fp32.onnx"]


def test_a_file_of_tensorflows_loses_its_colons_and_what_the_head_does_not_read(tmp_path: Path) -> None:
    made = {f"detection_{name}:0": array for name, array in outputs_for("ssd").items()}
    path = constant_detector(
        tmp_path / "model.onnx",
        {"num_detections:0": np.array([100.0]), **made},
        name="image_tensor:0",
        shape=(1, "high", "wide", 3),
        kind=TensorProto.UINT8,
    )
    refused = compiled(tmp_path, path, "--head", "ssd")
    assert refused.exit_code == 1
    assert "Give --size WIDTHxHEIGHT" in refused.output
    refused = compiled(tmp_path, path, "--head", "ssd", "--size", "128x128", "--mean", "0.5")
    assert "takes pixels as they are (UINT8). Leave out --scale, --mean and --std" in refused.output
    result = compiled(tmp_path, path, "--head", "ssd", "--size", "128x128")
    assert result.exit_code == 0, result.output
    manifest, found = opened(tmp_path, BLANK)
    assert [spec.name for spec in manifest.inputs] == ["image_tensor"]
    assert [spec.name for spec in manifest.outputs] == ["detection_boxes", "detection_scores", "detection_classes"]
    assert manifest.inputs[0].shape == (1, SIDE, SIDE, 3)
    assert manifest.preprocess == Preprocess(SIDE, SIDE, "rgb", 1.0, (0.0,) * 3, (1.0,) * 3, layout="nhwc")
    assert manifest.golden.atol < 0.01
    assert found.labels.tolist() == LABELS[np.argsort(-SCORES)].tolist()


def test_the_golden_test_may_have_pictures_of_the_users_own(tmp_path: Path) -> None:
    make_detector(tmp_path / "made")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    scene = np.full((240, 320, 3), 60, np.uint8)
    scene[80:120, 40:64] = 240
    for number in range(3):
        cv2.imwrite(str(pictures / f"{number}.png"), np.roll(scene, 8 * number, axis=1))
    result = compiled(
        tmp_path, tmp_path / "made" / MODEL_FILE, "--head", "yolo", "--golden", pictures, labels=("block",)
    )
    assert result.exit_code == 0, result.output
    assert "Golden inputs are made pictures" not in result.output
    packed = read(tmp_path / "things@1")
    golden = np.load(packed.file(packed.manifest.golden.inputs["image"]))
    assert golden.shape == (3, 3, 240, 320)
    assert golden[0, 0, 100, 50] == pytest.approx(240 / 255)
    _, found = opened(tmp_path, scene)
    assert found.boxes == pytest.approx(np.array([[40, 80, 64, 120]]), abs=1.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--head", "yolo", "--calibration", "."), "--head and --calibration go together with --cloud alone"),
        (("--head", "yolo", "--kind", "tensors"), "--head and --kind do not go together"),
        (("--golden", "."), "--golden goes with --head"),
        (("--cloud", "."), "--cloud goes with --head"),
        (("--head", "yolo", "--cloud", "."), "--cloud needs --calibration DIR"),
        (("--head", "yolo", "--epsilon", "0.1"), "--epsilon goes with --cloud"),
        (("--head", "nanodet"), "no grid over 128x128 pixels"),
        (("--head", "yolo", "--size", "64x64"), "takes 128x128 pixels (-1: any). Give --size"),
        (("--head", "yolo", "--colour", "grey"), "Give --colour rgb or bgr"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_option(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    path = constant_detector(tmp_path / "model.onnx", outputs_for("yolov8"))
    result = compiled(tmp_path, path, *options)
    assert result.exit_code == 1
    assert told in result.output


def test_the_labels_of_coco_need_no_file(tmp_path: Path) -> None:
    seen = {"out": np.full((1, 84, 100), 0.01, np.float32)}
    path = constant_detector(tmp_path / "model.onnx", seen)
    told = ["--onnx", path, "--name", "things", "--version", "1", "--target", "cpu-x86", "--head", "yolo"]
    result = CliRunner().invoke(app, [str(each) for each in (*told, "--labels", "coco80", "--out", tmp_path)])
    assert result.exit_code == 0, result.output
    labels = read(tmp_path / "things@1").manifest.labels
    assert (len(labels), labels[0], labels[-1]) == (80, "person", "toothbrush")
