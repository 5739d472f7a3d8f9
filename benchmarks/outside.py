"""Models from elsewhere, compiled from their ONNX files alone with a folder of pictures: int8 against their own fp32.

`python -m benchmarks.outside --cache DIR`; FOOTHILL_ASSETS has the models and the video whose frames calibrate them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import typer

from benchmarks.cifar10 import assets
from benchmarks.report import table
from model_compiler.from_onnx import OnnxRequest, Pictures, onnx_plan
from model_compiler.pack import read_measurements
from model_compiler.pipeline import compile_bundle, report_of
from model_compiler.plan import CPU_INT8_FILE, FP32_FILE
from model_compiler.progress import Progress, silent
from model_compiler.reporting.findings import Fallback, Quantizing
from model_compiler.reporting.report import JSON_FILE, read_report
from model_compiler.stages import Stages

_VIDEOS = (("video/vtest.avi", 5), ("video/bikes.mp4", 2))
_MODELS = {
    "efficientnet-lite0": (
        "models/efficientnet_lite0.onnx",
        Pictures(mean=(0.498, 0.498, 0.498), std=(0.502, 0.502, 0.502)),
    ),
    "nanodet": (
        "models/nanodet.onnx",
        Pictures(colour="bgr", scale=1.0, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395)),
    ),
}


class Row(msgspec.Struct, frozen=True):
    """The int8 file for CPUs beside the fp32 one. `like` is the metric in words, `score` what int8 gets by it over
    `pictures` that calibrated nothing; `kept`: layers in float. Times are medians in turns, batch 1, one thread."""

    model: str
    like: str
    score_percent: float
    pictures: int
    kept: int
    fp32_bytes: int
    int8_bytes: int
    fp32_ms: float
    int8_ms: float
    cpu_s: float


def measure(cache: Path, *, progress: Progress = silent) -> list[Row]:
    """Raises CompileError without FOOTHILL_ASSETS."""
    pictures = _frames(cache)
    with tempfile.TemporaryDirectory() as out:
        return [_row(name, file, told, pictures, Path(out), progress) for name, (file, told) in _MODELS.items()]


def _row(name: str, file: str, told: Pictures, pictures: Path, out: Path, progress: Progress) -> Row:
    request = OnnxRequest(
        onnx=assets() / file, name=name, version="1", targets=("cpu-x86",), calibration=pictures, pictures=told
    )
    stages = Stages(out / "stages")
    packed = compile_bundle(onnx_plan(request, out / "stages"), out / name, stages=stages, progress=progress)
    measurements = read_measurements(packed)
    int8, fp32 = measurements.artifacts[CPU_INT8_FILE], measurements.artifacts[FP32_FILE]
    quantizing = read_report(report_of(out / name) / JSON_FILE).findings.quantizing
    fallback = quantizing.fallback if isinstance(quantizing, Quantizing) else None
    return Row(
        model=name,
        like=measurements.metric,
        score_percent=round(100 * (int8.accuracy or 0.0), 2),
        pictures=int8.samples,
        kept=len(fallback.kept) if isinstance(fallback, Fallback) else 0,
        fp32_bytes=fp32.bytes,
        int8_bytes=int8.bytes,
        fp32_ms=round(fp32.latency_ms or 0.0, 2),
        int8_ms=round(int8.latency_ms or 0.0, 2),
        cpu_s=round(sum(ran.cpu_s for ran in stages.ran), 1),
    )


def _frames(cache: Path) -> Path:
    """Every so-manieth frame of the videos, as JPEGs."""
    folder = cache / "frames"
    if not folder.exists():
        partial = cache / "frames.part"
        partial.mkdir(parents=True, exist_ok=True)
        for video, step in _VIDEOS:
            reader = cv2.VideoCapture(str(assets() / video))
            number = 0
            while (read := reader.read())[0]:
                if number % step == 0:
                    cv2.imwrite(str(partial / f"{Path(video).stem}-{number:04d}.jpg"), read[1])
                number += 1
        partial.replace(folder)
    return folder


def main(cache: Annotated[Path, typer.Option(help="Where the frames are kept.")]) -> None:
    """Prints a row for each model."""
    print(table(measure(cache)))


if __name__ == "__main__":
    typer.run(main)
