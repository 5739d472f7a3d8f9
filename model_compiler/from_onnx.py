"""A plan for a user who has an ONNX file, and perhaps a folder of pictures, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from contracts.boards import BOARDS
from contracts.manifest import PostprocessKind, Precision, Preprocess, Task, TensorSpec
from model_compiler.confidence import Promise
from model_compiler.data.folder import UNLABELLED, read_folder
from model_compiler.data.parts import split
from model_compiler.data.samples import Arrays, Data, PictureSamples, Rows, Samples
from model_compiler.detectors.told import Told
from model_compiler.errors import CompileError
from model_compiler.onnx_ends import ends_of, load, tensor_specs
from model_compiler.plan import Budget, OnnxFile, Plan, artifacts_for
from model_compiler.progress import Progress, silent, stage_of

Colour = Literal["rgb", "bgr", "grey"]
Resize = Literal["stretch", "letterbox", "crop"]
_MOST_CALIBRATION, _MOST_VALIDATION = 128, 512
_CALIBRATION_NUMBERS, _VALIDATION_NUMBERS = 1 << 24, 1 << 25
"""Of inputs: large pictures, each of which has more to say, are fewer."""
_NOISE_ROWS = 16
_LEAST_PICTURES = 40
_LEAST_ROWS = 16
_POINTS, _ROWS_LOST = 1.0, 2
"""What int8 may lose where the user does not say: so many points, but not less than so many rows weigh."""


class Pictures(msgspec.Struct, frozen=True):
    """How a picture becomes the model's input, where the file does not say. `size`: (width, height), from the file.

    `mean` and `std`: one value, or one for each channel.
    """

    colour: Colour = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: Resize = "stretch"
    size: tuple[int, int] | None = None


class OnnxRequest(msgspec.Struct, frozen=True):
    """What `foothill compile --onnx` was told. `precisions` empty: what the samples and the targets allow;
    `max_drop_points` None: what the pictures can tell. `head`: it is a detector
    (model_compiler.detectors), of whose golden test `golden` has the pictures. With a `cloud` bundle, by its directory,
    it gets a confidence rule that keeps the `promise`, fitted on the pictures of `calibration`."""

    onnx: Path
    name: str
    version: str
    targets: tuple[str, ...]
    model: str = ""
    calibration: Path | None = None
    pictures: Pictures = Pictures()
    precisions: tuple[Precision, ...] = ()
    labels: tuple[str, ...] = ()
    kind: PostprocessKind | None = None
    max_drop_points: float | None = None
    head: Told | None = None
    golden: Path | None = None
    cloud: Path | None = None
    promise: Promise = Promise()


def onnx_plan(request: OnnxRequest, cache: Path, *, progress: Progress = silent) -> Plan:
    """Raises CompileError for a file that is not taken, and for pictures that do not fit it."""
    ends, model = ends_of(request.onnx), load(request.onnx)
    (inputs,), outputs = tensor_specs(model)
    preprocess = _preprocess(request, inputs)
    kind = request.kind or _kind(model, outputs)
    data, how = _samples(request, inputs, preprocess, cache, progress)
    return Plan(
        name=request.name,
        version=request.version,
        model=request.model or request.name,
        task=_TASKS[kind],
        tier="edge",
        data=data,
        artifacts=artifacts_for(request.targets, request.precisions or _precisions(request)),
        how=how,
        student=OnnxFile(request.onnx),
        budget=Budget(_points(request, len(data.validation))),
        preprocess=preprocess,
        kind=kind,
        labels=request.labels,
        ends=ends,
    )


def missing(request: OnnxRequest, plan: Plan) -> tuple[str, ...]:
    """What the bundle will lack, each with what would bring it."""
    told = []
    if request.calibration is None:
        told.append(
            "No int8: its ranges come from real pictures. Give --calibration DIR with a hundred or more of them.\n"
            "No accuracy: nothing real was run. Golden inputs are noise, which proves the arithmetic, not the model."
        )
    if plan.preprocess is not None and request.pictures == Pictures():
        told.append(
            "Pixels are scaled to 0..1 and not normalised further. If the model was trained otherwise, give --mean, "
            "--std, --scale and --colour: wrong ones cost accuracy and say nothing."
        )
    if plan.task == "classification" and not request.labels:
        told.append("Answers carry class numbers. Give --labels FILE with one name a line.")
    return tuple(told)


_TASKS: dict[PostprocessKind, Task] = {
    "logits": "classification",
    "probabilities": "classification",
    "vector": "embedding",
    "tensors": "detection",
}


def _kind(model: Any, outputs: tuple[TensorSpec, ...]) -> PostprocessKind:
    """One output [rows, classes] is taken for logits, or for probabilities where a softmax writes it; anything else
    for tensors that the caller reads, a single number a row too."""
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].shape[1] == 1:
        return "tensors"
    last = next((node for node in model.graph.node if outputs[0].name in node.output), None)
    return "probabilities" if last is not None and last.op_type == "Softmax" else "logits"


def _points(request: OnnxRequest, validation: int) -> float:
    """The fewer pictures judge, the more weighs a single one."""
    if request.max_drop_points is not None:
        return request.max_drop_points
    return min(100.0, max(_POINTS, 100 * _ROWS_LOST / max(validation, 1)))


def _precisions(request: OnnxRequest) -> tuple[Precision, ...]:
    """int8 where it can be calibrated; fp16 first where GPUs run it, and behind fp32 for CPUs, which only store it."""
    gpus = any(BOARDS[target].family != "cpu" for target in request.targets)
    if request.calibration is not None:
        return ("int8", "fp16", "fp32") if gpus else ("int8", "fp32")
    return ("fp16", "fp32") if gpus else ("fp32", "fp16")


def _preprocess(request: OnnxRequest, inputs: TensorSpec) -> Preprocess | None:
    """For models that take pictures as float32 NCHW; None for any other, whose calls bring tensors."""
    shape, told = inputs.shape, request.pictures
    channels = 1 if told.colour == "grey" else 3
    if len(shape) != 4 or inputs.datatype != "FP32" or shape[1] not in (1, 3, -1):
        if request.calibration is not None:
            raise CompileError(
                f"{request.onnx} takes {inputs.datatype} {list(shape)}, and pictures become FP32 [rows, 3, height, "
                "width]. Compile it without --calibration, or with a recipe whose loaders give its inputs."
            )
        return None
    if shape[1] not in (channels, -1):
        colour = "grey" if shape[1] == 1 else "rgb or bgr"
        raise CompileError(f"{request.onnx} takes {shape[1]} channels. Give --colour {colour}.")
    width, height = told.size or (shape[3], shape[2])
    fits = shape[3] in (width, -1) and shape[2] in (height, -1)
    if not fits or width < 1 or height < 1:
        raise CompileError(f"{request.onnx} takes {shape[3]}x{shape[2]} pixels (-1: any). Give --size WIDTHxHEIGHT.")
    return Preprocess(width, height, told.colour, told.scale, *levels(told, channels), told.resize)


def levels(told: Pictures, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel. Raises CompileError for what are no such numbers."""
    means, stds = (value * channels if len(value) == 1 else value for value in (told.mean, told.std))
    _check_numbers(told, means, stds, channels)
    return means, stds


def _check_numbers(told: Pictures, means: tuple[float, ...], stds: tuple[float, ...], channels: int) -> None:
    for option, values, least in (("--scale", (told.scale,), 0), ("--mean", means, -math.inf), ("--std", stds, 0)):
        if not all(least < value < math.inf for value in values):
            raise CompileError(f"{option} {', '.join(map(str, values))}: write finite numbers, scale and std above 0.")
        if option != "--scale" and len(values) != channels:
            raise CompileError(f"{option} has {len(values)} values for {channels} channels. Give one, or {channels}.")


def _samples(
    request: OnnxRequest, inputs: TensorSpec, preprocess: Preprocess | None, cache: Path, progress: Progress
) -> tuple[Data, str]:
    if request.calibration is None or preprocess is None:
        noise = _noise(inputs, preprocess)
        return _all_of(noise), "not measured: there are no pictures"
    advance = stage_of(progress, f"{request.name}@{request.version}", "read pictures")
    folder = read_folder(request.calibration, preprocess, cache, advance=advance)
    if len(folder.samples) < _LEAST_PICTURES:
        raise CompileError(
            f"{request.calibration} holds {len(folder.samples)} pictures; {_LEAST_PICTURES} are the least that "
            "calibrate and check anything. A few hundred of the kind that the model will see are better."
        )
    samples = PictureSamples(folder.samples.pictures, np.full(len(folder.samples), UNLABELLED), preprocess)
    parts = split(samples, _counts(len(samples), samples.batch(np.zeros(1, np.int64)).size), seed=0)
    data = Data(
        train=Rows(samples, np.zeros(0, np.int64)),
        ranges=parts["calibration"],
        validation=parts["validation"],
        fit=parts["fit"],
        threshold=Rows(samples, np.zeros(0, np.int64)),
        test=parts["rest"],
    )
    return data, f"{len(data.test):,} of the pictures, used for nothing else"


def _counts(pictures: int, numbers: int) -> dict[str, float]:
    """Of so many pictures with so many numbers each: more than a hundred hardly change the ranges, but every one that
    judges counts. The rest measures."""
    third = round(0.35 * pictures)
    calibration = max(_LEAST_ROWS, min(_MOST_CALIBRATION, _CALIBRATION_NUMBERS // numbers))
    validation = max(_LEAST_ROWS, min(_MOST_VALIDATION, _VALIDATION_NUMBERS // numbers))
    return {"calibration": min(third, calibration), "validation": min(third, validation), "fit": round(0.1 * pictures)}


def _noise(inputs: TensorSpec, preprocess: Preprocess | None) -> Samples:
    """For golden inputs where there are no pictures."""
    sizes = tuple(1 if size < 1 else size for size in inputs.shape[1:])
    if preprocess is not None:
        sizes = (len(preprocess.mean), preprocess.height, preprocess.width)
    values = np.random.default_rng(0).standard_normal((_NOISE_ROWS, *sizes), np.float32)
    return Arrays(values, np.full(_NOISE_ROWS, UNLABELLED))


def _all_of(samples: Samples) -> Data:
    nothing = Rows(samples, np.zeros(0, np.int64))
    return Data(train=nothing, ranges=nothing, validation=nothing, fit=samples, threshold=nothing, test=nothing)
