"""A plan for a user who has an ONNX file, and perhaps a folder of pictures, and nothing else."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from contracts.boards import BOARDS
from contracts.manifest import PostprocessKind, Precision, Preprocess, Task, TensorSpec
from model_compiler.data.folder import UNLABELLED, read_folder
from model_compiler.data.parts import split
from model_compiler.data.samples import Arrays, Data, PictureSamples, Rows, Samples
from model_compiler.errors import CompileError
from model_compiler.onnx_ends import ends_of, load, tensor_specs
from model_compiler.plan import Budget, OnnxFile, Plan, artifacts_for

_SHARES = {"calibration": 0.5, "validation": 0.2, "fit": 0.1}
_NOISE_ROWS = 16
_LEAST_PICTURES = 40


class Pictures(msgspec.Struct, frozen=True):
    """How a picture becomes the model's input, where the file does not say. `size`: (width, height), from the file."""

    colour: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resize: str = "stretch"
    size: tuple[int, int] | None = None


class OnnxRequest(msgspec.Struct, frozen=True):
    """What `foothill compile --onnx` was told. `precisions` empty: what the samples and the targets allow."""

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
    max_drop_points: float = 1.0


def onnx_plan(request: OnnxRequest, cache: Path) -> Plan:
    """Raises CompileError for a file that is not taken, and for pictures that do not fit it."""
    ends = ends_of(request.onnx)
    (inputs,), outputs = tensor_specs(load(request.onnx))
    preprocess = _preprocess(request, inputs)
    kind = request.kind or _kind(outputs)
    data, how = _samples(request, inputs, preprocess, cache)
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
        budget=Budget(request.max_drop_points),
        preprocess=preprocess,
        kind=kind,
        labels=request.labels,
        ends=ends,
    )


def missing(request: OnnxRequest) -> tuple[str, ...]:
    """What the bundle will lack, each with what would bring it."""
    told = []
    if request.calibration is None:
        told.append(
            "No int8: its ranges come from real pictures. Give --calibration DIR with a hundred or more of them.\n"
            "No accuracy: nothing real was run. Golden inputs are noise, which proves the arithmetic, not the model."
        )
    if request.pictures == Pictures():
        told.append(
            "Pixels are scaled to 0..1 and not normalised further. If the model was trained otherwise, give --mean, "
            "--std, --scale and --colour: wrong ones cost accuracy and say nothing."
        )
    if not request.labels:
        told.append("Answers carry class numbers. Give --labels FILE with one name a line.")
    return tuple(told)


_TASKS: dict[PostprocessKind, Task] = {
    "logits": "classification",
    "probabilities": "classification",
    "vector": "embedding",
    "tensors": "detection",
}


def _kind(outputs: tuple[TensorSpec, ...]) -> PostprocessKind:
    """One output [rows, classes] is taken for logits; anything else for tensors that the caller reads."""
    return "logits" if len(outputs) == 1 and len(outputs[0].shape) == 2 else "tensors"


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
    if (shape[3], shape[2]) not in ((width, height), (-1, -1)) or width < 1 or height < 1:
        raise CompileError(f"{request.onnx} takes {shape[3]}x{shape[2]} pixels (-1: any). Give --size WIDTHxHEIGHT.")
    means, stds = (value[:channels] for value in (told.mean, told.std))
    return Preprocess(width, height, told.colour, told.scale, means, stds, told.resize)  # type: ignore[arg-type]


def _samples(request: OnnxRequest, inputs: TensorSpec, preprocess: Preprocess | None, cache: Path) -> tuple[Data, str]:
    if request.calibration is None or preprocess is None:
        noise = _noise(inputs, preprocess)
        return _all_of(noise), "not measured: there are no pictures"
    folder = read_folder(request.calibration, preprocess, cache)
    if len(folder.samples) < _LEAST_PICTURES:
        raise CompileError(
            f"{request.calibration} holds {len(folder.samples)} pictures; {_LEAST_PICTURES} are the least that "
            "calibrate and check anything. A few hundred of the kind that the model will see are better."
        )
    samples = PictureSamples(folder.samples.pictures, np.full(len(folder.samples), UNLABELLED), preprocess)
    parts = split(samples, _SHARES, seed=0)
    data = Data(
        train=Rows(samples, np.zeros(0, np.int64)),
        ranges=parts["calibration"],
        validation=parts["validation"],
        fit=parts["fit"],
        threshold=Rows(samples, np.zeros(0, np.int64)),
        test=parts["rest"],
    )
    return data, f"agreement with the fp32 form on {len(data.test):,} of the pictures, used for nothing else"


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
