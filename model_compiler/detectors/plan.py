"""A plan for a user who has a detector's ONNX file, and knows what kind of head it has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Detector, Preprocess, TensorSpec
from model_compiler.data.folder import MEDIA_TYPES, UNLABELLED, picture_files
from model_compiler.data.samples import Arrays, Data, Rows
from model_compiler.detectors.cloud import read_cloud, read_pictures
from model_compiler.detectors.finder import unreadable
from model_compiler.detectors.graph import fitted_graph
from model_compiler.detectors.guess import Asked, Head, head_of
from model_compiler.detectors.pairs import Picture
from model_compiler.detectors.pictures import made_inputs
from model_compiler.detectors.told import Told
from model_compiler.errors import CompileError
from model_compiler.from_onnx import OnnxRequest, Pictures, levels
from model_compiler.onnx_ends import ends_of, load, tensor_specs
from model_compiler.pack import Packed
from model_compiler.plan import OnnxFile, Plan, artifacts_for
from model_compiler.replay import Ends, open_engine
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.preprocess import Preprocessor

_PICTURES, _TRIED = 16, 4
_OUTPUTS = ("boxes", "scores")
_HOW_CERTIFIED = (
    "not measured: the pictures have no labels; agreement and escalation: of one thing of each picture that certifies "
    "the threshold"
)


def detector_plan(request: OnnxRequest, told: Told, room: Path) -> tuple[Plan, tuple[str, ...]]:
    """And what was guessed, and what the bundle will lack. The graph that is compiled is written into `room`.

    Raises CompileError for a file that is not taken, and for what cannot be known of its head.
    """
    asked = _asked(request)
    model = load(request.onnx)
    inputs = _picture_input(request, model)
    pre, raw = _preprocess(request, inputs), inputs.datatype == "UINT8"
    seen = _tried(request.onnx, model, inputs, made_inputs(pre, _TRIED, raw=raw))
    head = head_of(Asked(request.onnx, told, seen, request.labels, pre))
    path, names = fitted_graph(request.onnx, model, head.outputs, pre, room)
    ends = Ends(names[inputs.name], tuple(names[each] for each in head.outputs), ends_of(path).batch)
    plan = Plan(
        name=request.name,
        version=request.version,
        model=request.model or request.name,
        task="detection",
        tier="edge",
        data=_data(_golden(request, pre, raw=raw)),
        artifacts=artifacts_for(request.targets, ("fp32",)),
        how=_HOW_CERTIFIED if asked.cloud is not None else "not measured: there are no pictures",
        student=OnnxFile(path),
        preprocess=pre,
        kind=head.kind,
        detector=_renamed(head, names),
        labels=request.labels,
        ends=ends,
        cloud=asked.cloud,
        promise=request.promise,
        pictures=asked.pictures,
    )
    return plan, tuple(_said(request, asked, head, pre, seen, raw=raw))


class _Asked(NamedTuple):
    """The bundle that the detector is certified against, and the pictures that both are asked about."""

    cloud: Packed | None = None
    pictures: tuple[Picture, ...] = ()


def _asked(request: OnnxRequest) -> _Asked:
    if request.cloud is None or request.calibration is None:
        return _Asked()
    cloud = read_cloud(request.cloud, request.model or request.name, request.labels)
    return _Asked(cloud, read_pictures(request.calibration))


def _picture_input(request: OnnxRequest, model: Any) -> TensorSpec:
    inputs, _ = tensor_specs(model)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].datatype not in ("FP32", "UINT8"):
        given = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in inputs) or "nothing"
        raise CompileError(
            f"{request.onnx} takes {given}. A detector takes one picture: FP32 or UINT8, [rows, 3, height, width] or "
            "[rows, height, width, 3]."
        )
    return inputs[0]


def _preprocess(request: OnnxRequest, inputs: TensorSpec) -> Preprocess:
    told, shape = request.pictures, inputs.shape
    channels = 1 if told.colour == "grey" else 3
    last = shape[1] not in (1, 3) and shape[3] in (1, 3)
    if shape[3 if last else 1] not in (channels, -1):
        raise CompileError(
            f"{request.onnx} takes {list(shape)}. Give --colour {'rgb or bgr' if channels == 1 else 'grey'}."
        )
    high, wide = (shape[1], shape[2]) if last else (shape[2], shape[3])
    width, height = told.size or (wide, high)
    if width < 1 or height < 1 or wide not in (width, -1) or high not in (height, -1):
        raise CompileError(f"{request.onnx} takes {wide}x{high} pixels (-1: any). Give --size WIDTHxHEIGHT.")
    pre = Preprocess(width, height, told.colour, told.scale, *levels(told, channels), told.resize)
    if last:
        pre = msgspec.structs.replace(pre, layout="nhwc")
    return _of_pixels(request, pre) if inputs.datatype == "UINT8" else pre


def _of_pixels(request: OnnxRequest, pre: Preprocess) -> Preprocess:
    told, plain = request.pictures, Pictures()
    if (told.scale, told.mean, told.std) not in ((plain.scale, plain.mean, plain.std), (1.0, plain.mean, plain.std)):
        raise CompileError(f"{request.onnx} takes pixels as they are (UINT8). Leave out --scale, --mean and --std.")
    return msgspec.structs.replace(pre, scale=1.0)


def _tried(path: Path, model: Any, inputs: TensorSpec, pictures: Array) -> dict[str, Array]:
    """All outputs for a few pictures."""
    rows = pictures if inputs.shape[0] == -1 else pictures[: inputs.shape[0]]
    try:
        with closing(open_engine(path)) as engine:
            outputs = engine.run({inputs.name: rows})
    except FoothillError as error:
        raise CompileError(f"{path} does not run on pictures: {error.message}") from error
    return {spec.name: np.asarray(outputs[spec.name]) for spec in tensor_specs(model)[1]}


def _renamed(head: Head, names: dict[str, str]) -> Detector:
    detector = head.detector
    called = {field: tuple(names[each] for each in getattr(detector, field)) for field in _OUTPUTS}
    return msgspec.structs.replace(detector, **called, classes=names.get(detector.classes, ""))


def _data(inputs: Array) -> Data:
    pictures = Arrays(inputs, np.full(len(inputs), UNLABELLED))
    nothing = Rows(pictures, np.zeros(0, np.int64))
    return Data(train=nothing, ranges=nothing, validation=nothing, fit=pictures, threshold=nothing, test=nothing)


def _golden(request: OnnxRequest, pre: Preprocess, *, raw: bool) -> Array:
    """A few of the user's pictures, from all over the folder, or made ones."""
    if request.golden is None:
        return made_inputs(pre, _PICTURES, raw=raw)
    files = picture_files(request.golden)
    chosen = np.unique(np.linspace(0, len(files) - 1, _PICTURES).astype(np.int64))
    preprocessor = Preprocessor(pre, raw=raw)
    return np.concatenate([_tensor(files[at], preprocessor) for at in chosen])


def _tensor(path: Path, preprocessor: Preprocessor) -> Array:
    try:
        return preprocessor.tensor(path.read_bytes(), MEDIA_TYPES[path.suffix.lower()])
    except OSError as error:
        raise CompileError(f"{path} cannot be read ({error.strerror}). Make it readable, or remove it.") from error
    except FoothillError as error:
        raise unreadable(str(path), error) from error


def _said(
    request: OnnxRequest, asked: _Asked, head: Head, pre: Preprocess, seen: Mapping[str, Array], *, raw: bool
) -> list[str]:
    guessed = "; ".join(head.guessed) or "nothing"
    told = [f"Head {head.kind}. Found out from the file: {guessed}. --head FILE.toml says otherwise."]
    if head.detector.score_threshold == Detector().score_threshold:
        told.append(
            f"Boxes below a score of {Detector().score_threshold} are left out. Cameras follow things by weaker ones "
            "too: score_threshold = 0.1 in --head FILE.toml suits them."
        )
    told.append(_said_of_pixels(pre, raw=raw))
    told.append("No accuracy: no picture has labels. No int8 and no fp16: what they do to boxes is not measured yet.")
    if asked.cloud is None:
        told.append(
            "No confidence rule. Give --cloud BUNDLE and --calibration DIR with pictures that both are asked about."
        )
    if request.golden is None:
        idle = not any(seen[name].any() for name in head.outputs)
        proves = "which it answers with zeros: they prove next to nothing" if idle else "which prove the arithmetic"
        told.append(f"Golden inputs are made pictures, {proves}. Give --golden DIR with some in which it finds things.")
    if not request.labels:
        told.append("Objects carry class numbers. Give --labels FILE with one name a line, or coco80.")
    return told


def _said_of_pixels(pre: Preprocess, *, raw: bool) -> str:
    levels = "as they are" if raw else f"scaled by {pre.scale:.4g}, mean {list(pre.mean)}, std {list(pre.std)}"
    options = "--resize and --colour" if raw else "--resize, --colour, --scale, --mean and --std"
    return (
        f"Pictures are resized by {pre.resize}, their pixels {pre.colour}, {levels}. If the model was trained "
        f"otherwise, give {options}: wrong ones cost accuracy and say nothing."
    )
