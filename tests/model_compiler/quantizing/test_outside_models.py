"""Models that others exported, from FOOTHILL_ASSETS: every file that we make of them runs and is near the original."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnx
import pytest

from model_compiler.data.samples import Arrays, Floats
from model_compiler.quantizing.half import to_fp16
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import table_of
from model_compiler.quantizing.sqnr import sqnr_db
from model_compiler.quantizing.tensorrt_lint import check_tensorrt
from model_compiler.replay import Ends, all_outputs_of

pytestmark = [pytest.mark.assets, pytest.mark.timeout(600)]


class Outside(NamedTuple):
    """`least_db`: of every output of the int8 files, the CPU's and TensorRT's; frames of other places than it knows."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rgb: bool
    ends: Ends
    least_db: tuple[float, float]


HEADS = ("Identity_2:0", "Identity_5:0", "Identity_1:0", "Identity:0", "Identity_4:0", "Identity_3:0")
OUTSIDE = {
    "efficientnet_lite0": Outside(224, (127,) * 3, (128,) * 3, True, Ends("x", ("logits",)), (13, 12)),
    "efficientnet_lite2": Outside(260, (127,) * 3, (128,) * 3, True, Ends("x", ("logits",)), (13, 12)),
    "nanodet": Outside(
        416,
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        False,
        Ends("input_1:0", HEADS, batch=1),
        (8, 11),
    ),
}


def frames(assets: Path, outside: Outside, count: int, first: int) -> Floats:
    """Every so many frames of two videos, the middle square of each."""
    found = []
    for name in ("vtest.avi", "bikes.mp4"):
        video = cv2.VideoCapture(str(assets / "video" / name))
        wanted = set(np.linspace(first, 240, count // 2).astype(int).tolist())
        for index in range(241):
            _, frame = video.read()
            if index in wanted:
                found.append(_square(frame, outside))
    return np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2).astype(np.float32))


def _square(frame: np.ndarray, outside: Outside) -> np.ndarray:
    side = min(frame.shape[:2])
    top, left = ((size - side) // 2 for size in frame.shape[:2])
    square = cv2.resize(frame[top : top + side, left : left + side], (outside.size,) * 2, interpolation=cv2.INTER_AREA)
    if outside.rgb:
        square = square[..., ::-1]
    return np.asarray((square - np.array(outside.mean)) / np.array(outside.std))


@pytest.mark.parametrize("name", OUTSIDE)
def test_every_file_of_an_outside_model_is_near_it(name: str, tmp_path: Path) -> None:
    root = os.environ.get("FOOTHILL_ASSETS")
    if not root:
        pytest.skip("set FOOTHILL_ASSETS to the directory of the shared assets")
    outside, fp32 = OUTSIDE[name], Path(root) / "models" / f"{name}.onnx"
    calibration = Arrays(frames(Path(root), outside, 32, 0), np.zeros(32, np.int64))
    seen = observe(fp32, calibration, outside.ends)
    table = table_of(seen, "percentile")
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table)
    quantize_tensorrt(fp32, tmp_path / "trt.onnx", table)
    to_fp16(fp32, tmp_path / "fp16.onnx", seen=seen)
    check_tensorrt(tmp_path / "trt.onnx")
    inputs = frames(Path(root), outside, 12, 5)
    wanted = all_outputs_of(fp32, inputs, outside.ends)
    least = {"cpu": outside.least_db[0], "trt": outside.least_db[1], "fp16": 40}
    for kind, db in least.items():
        path = tmp_path / f"{kind}.onnx"
        onnx.checker.check_model(str(path))
        got = all_outputs_of(path, inputs, outside.ends, literal=kind != "cpu")
        found = {output: sqnr_db(values, got[output]) for output, values in wanted.items()}
        assert min(found.values()) > db, (kind, found)
        assert path.stat().st_size < fp32.stat().st_size * (0.51 if kind == "fp16" else 0.28)
