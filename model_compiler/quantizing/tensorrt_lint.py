"""What TensorRT's parser and its strongly typed networks refuse in an int8 ONNX file, found before they see it.

NVIDIA, TensorRT Developer Guide, "Working with quantized types": symmetric int8 only, zero points all zero, scales
constant floats above zero, one a tensor or one a channel; biases stay float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.errors import CompileError
from model_compiler.quantizing.graph import Array
from model_compiler.quantizing.placement import weight_axis

if TYPE_CHECKING:
    import onnx

MIN_OPSET = 13
MAX_OPSET = 20
"""What the parser of TensorRT 10.3 (JetPack 6.2) reads in full; the opset that `export_onnx` writes."""

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class _Model(msgspec.Struct, frozen=True):
    """By name: constants as arrays, the nodes that write a tensor, those that read it."""

    constants: Mapping[str, Array]
    makers: Mapping[str, onnx.NodeProto]
    takers: Mapping[str, list[onnx.NodeProto]]


def lint(model: onnx.ModelProto) -> list[str]:
    """Every violation with the name of its node, in graph order; empty for a file that TensorRT can take."""
    known = _model(model)
    found = [*_opset(model)]
    for node in model.graph.node:
        found += [f"{node.op_type} {node.name!r}: {what}" for rule in _RULES for what in rule(node, known)]
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        found.append("the model has no QuantizeLinear: nothing in it is int8")
    return found


def check_tensorrt(path: Path) -> None:
    """Raises CompileError that lists every violation."""
    import onnx

    found = lint(onnx.load(str(path)))
    if found:
        listed = "\n".join(f"- {each}" for each in found)
        raise CompileError(
            f"TensorRT would refuse {path.name}, or compute something else:\n{listed}\n"
            "Quantize the float model for TensorRT with quantize_tensorrt; a file made for CPUs does not do."
        )


def _opset(model: onnx.ModelProto) -> Iterator[str]:
    for each in model.opset_import:
        if each.domain not in ("", "ai.onnx"):
            yield f"opset: the domain {each.domain!r} is not of ONNX"
        elif not MIN_OPSET <= each.version <= MAX_OPSET:
            yield f"opset: version {each.version} is not {MIN_OPSET} to {MAX_OPSET}"


def _integers(node: onnx.NodeProto, known: _Model) -> Iterator[str]:
    """int8 and nothing else: uint8 shifts zero, int32 is how CPUs store biases."""
    if node.op_type not in _PAIR:
        return
    zero = known.constants.get(node.input[2]) if len(node.input) > 2 else None
    data = known.constants.get(node.input[0])
    stored = data.dtype if node.op_type == "DequantizeLinear" and data is not None else None
    if stored == np.int32 or (zero is not None and zero.dtype == np.int32):
        yield "a bias is stored as int32; TensorRT takes float biases (QuantizeBias: False)"
    elif stored == np.uint8 or (zero is not None and zero.dtype == np.uint8):
        yield "it is uint8; TensorRT takes int8"
    elif zero is not None and zero.dtype != np.int8:
        yield f"its zero point is {zero.dtype}; TensorRT takes int8"
    elif zero is None and node.op_type == "QuantizeLinear" and not _names_int8(node):
        yield "it has no zero point, and then ONNX means uint8; give it a zero of int8"
    if len(node.input) > 2 and node.input[2] and zero is None:
        yield "its zero point is computed; TensorRT takes a constant"


def _zero(node: onnx.NodeProto, known: _Model) -> Iterator[str]:
    zero = known.constants.get(node.input[2]) if node.op_type in _PAIR and len(node.input) > 2 else None
    if zero is not None and zero.any():
        yield f"its zero point is {zero.reshape(-1)[zero.reshape(-1) != 0][0]}, not 0; TensorRT is symmetric"


def _scale(node: onnx.NodeProto, known: _Model) -> Iterator[str]:
    if node.op_type not in _PAIR:
        return
    scale = known.constants.get(node.input[1])
    if scale is None:
        yield "its scale is computed; TensorRT takes a constant"
    elif scale.dtype != np.float32:
        yield f"its scale is {scale.dtype}; float32 is needed, since half scales lose small ones"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "a scale is not a positive finite number"


def _axis(node: onnx.NodeProto, known: _Model) -> Iterator[str]:
    """One scale a channel is for constant weights, along the channels that their layer writes."""
    scale = known.constants.get(node.input[1]) if node.op_type in _PAIR else None
    if scale is None or scale.ndim == 0:
        return
    data, axis = known.constants.get(node.input[0]), _number(node, "axis", 1)
    if data is None:
        if scale.size > 1:
            yield f"it has {scale.size} scales for an activation; TensorRT takes one"
    elif not -data.ndim <= axis < data.ndim or data.shape[axis] != scale.size:
        yield f"{scale.size} scales do not fit axis {axis} of a weight {list(data.shape)}"
    else:
        for layer in known.takers.get(node.output[0], ()):
            if layer.op_type in _LAYERS and axis % data.ndim != weight_axis(layer):
                yield f"its scales lie along axis {axis}, the channels of {layer.op_type} {layer.name!r} along another"


def _pairing(node: onnx.NodeProto, known: _Model) -> Iterator[str]:
    """TensorRT moves whole pairs: what a QuantizeLinear writes is read by DequantizeLinear with the same scale."""
    if node.op_type != "QuantizeLinear":
        return
    takers = known.takers.get(node.output[0], [])
    if not takers:
        yield "nothing reads what it writes"
    for taker in takers:
        if taker.op_type != "DequantizeLinear":
            yield f"{taker.op_type} {taker.name!r} reads int8 itself; a DequantizeLinear must stand between"
        elif taker.input[1] != node.input[1]:
            yield f"{taker.name!r} reads it back with another scale"


def _layer(node: onnx.NodeProto, known: _Model) -> Iterator[str]:
    """A layer with an int8 weight needs an int8 input, or it is computed in float at no gain."""
    if node.op_type not in _LAYERS or len(node.input) < 2:
        return
    rounded = [
        known.makers[name].op_type == "DequantizeLinear" if name in known.makers else False for name in node.input[:2]
    ]
    if rounded[1] and not rounded[0]:
        yield "its weight is int8 and its input is not rounded"


def _names_int8(node: onnx.NodeProto) -> bool:
    import onnx

    return bool(_number(node, "output_dtype", 0) == onnx.TensorProto.INT8)


def _number(node: onnx.NodeProto, name: str, otherwise: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), otherwise)


def _model(model: onnx.ModelProto) -> _Model:
    import onnx

    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    return _Model(
        {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer},
        {name: node for node in model.graph.node for name in node.output},
        takers,
    )


_RULES: tuple[Callable[[onnx.NodeProto, _Model], Iterator[str]], ...] = (
    _integers,
    _zero,
    _scale,
    _axis,
    _pairing,
    _layer,
)
