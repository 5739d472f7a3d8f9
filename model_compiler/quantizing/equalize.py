"""Cross-layer equalization: weights moved between layers so that the channels of what lies between are alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.graph import Array, Graph, attribute
from model_compiler.quantizing.prepare import load_prepared
from model_compiler.replay import open_engine

if TYPE_CHECKING:
    import onnx

Scales = npt.NDArray[np.float64]

_ROUNDS = 40
_SETTLED = 1e-3
_WIDEST = 1e4
"""A channel is scaled by no more than this in one round: one that is nearly dead says nothing about its range."""

_TOLERANCE = 1e-3
_CHAIN_OPS = frozenset({"Conv", "Gemm", "MatMul"})
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity"})
"""f(s x) = s f(x) for s > 0, element by element: the scale moves through."""

_POOLING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})


class Equalized(msgspec.Struct, frozen=True):
    """`first` and `second` are nodes' names; `changed` is the largest factor by which a channel between them moved.

    `precision_before`, `precision_after`: the mean over channels of p1 * p2, where p is a channel's range over its
    layer's: what the method maximises (eq. 8 and 9 of the paper), from 0 to 1.
    """

    first: str
    second: str
    channels: int
    changed: float
    precision_before: float
    precision_after: float


class Side(msgspec.Struct, frozen=True):
    """One side of a pair: which constant, and its axis along which the channels between the two layers lie."""

    node: str
    weight: str
    axis: int
    bias: str = ""


class Pair(msgspec.Struct, frozen=True):
    """`repeat`: how many inputs of the second layer one channel of the first becomes (a flattened picture)."""

    first: Side
    second: Side
    channels: int
    repeat: int = 1


def equalize(fp32: Path, out: Path, *, inputs: Floats | None = None) -> list[Equalized]:
    """Writes to `out` a prepared model that answers as `fp32` does and quantizes better; what was changed, by pairs.

    Cross-layer equalization (Nagel, van Baalen, Blankevoort, Welling 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", section 4.1): for each pair of layers with nothing but a positively homogeneous
    function between them, channel i of the first is divided and of the second multiplied by
    s_i = sqrt(r1_i r2_i) / r2_i, r being the largest absolute weight; all pairs in turn until nothing moves.
    ReLU6, swish and multiplications by a gate are not homogeneous: no scale goes across them.

    `inputs` (n, ...) checks parity; without them, seeded normal numbers of the model's input shape do.
    Raises CompileError when the answers moved, or when a free shape leaves no input to check with.
    """
    graph = Graph(load_prepared(fp32))
    pairs = pairs_of(graph)
    before = [_ranges(graph, pair) for pair in pairs]
    moved = [np.ones(pair.channels) for pair in pairs]
    for _ in range(_ROUNDS):
        steps = [_balance(graph, pair) for pair in pairs]
        moved = [total * step for total, step in zip(moved, steps, strict=True)]
        if all(np.abs(np.log(step)).max() < _SETTLED for step in steps):
            break
    out.write_bytes(graph.model.SerializeToString(deterministic=True))
    if pairs:
        _check_parity(fp32, out, inputs if inputs is not None else _draw(graph.model))
    return [
        _told(pair, was, _ranges(graph, pair), factor) for pair, was, factor in zip(pairs, before, moved, strict=True)
    ]


def pairs_of(graph: Graph) -> list[Pair]:
    """Every two layers that can be equalized, in the order of the graph."""
    found = []
    for node in graph.model.graph.node:
        first = _outgoing(graph, node)
        if first is not None:
            pair = _follow(graph, node, first)
            if pair is not None:
                found.append(pair)
    return found


def _follow(graph: Graph, node: onnx.NodeProto, first: Side) -> Pair | None:
    """From a layer's output through homogeneous functions to the one layer that takes it."""
    weight = graph.constant(first.weight)
    assert weight is not None
    channels, picture, tensor = weight.shape[first.axis], node.op_type == "Conv", _last_output(graph, node)
    while True:
        taker = graph.only_consumer(tensor)
        if taker is None:
            return None
        if taker.op_type in _CHAIN_OPS and taker.input[0] == tensor:
            second = _incoming(graph, taker, picture)
            return None if second is None else _matched(graph, first, second, channels)
        if not _passes(graph, taker, tensor, picture):
            return None
        picture = picture and taker.op_type not in _FLATTENING
        tensor = taker.output[0]


def _matched(graph: Graph, first: Side, second: Side, channels: int) -> Pair | None:
    weight = graph.constant(second.weight)
    assert weight is not None
    size = weight.shape[second.axis]
    if first.weight == second.weight or channels == 0 or size % channels:
        return None
    return Pair(first, second, channels, size // channels)


def _passes(graph: Graph, node: onnx.NodeProto, tensor: str, picture: bool) -> bool:
    """Whether a positive scale per channel of `tensor` goes through `node` unchanged."""
    if node.op_type in _HOMOGENEOUS:
        return node.input[0] == tensor and all(graph.constant(name) is not None for name in node.input[1:])
    if not picture:
        return False
    return len(node.output) == 1 if node.op_type in _POOLING else _flattens(graph, node, tensor)


def _flattens(graph: Graph, node: onnx.NodeProto, tensor: str) -> bool:
    """Whether `node` makes pictures (n, c, h, w) into rows (n, c * h * w), and nothing else."""
    before, after = graph.shape(tensor), graph.shape(node.output[0])
    known = len(before) == 4 and len(after) == 2 and all(before[1:])
    return known and node.op_type in _FLATTENING and after[1] == math.prod(before[1:])


def _outgoing(graph: Graph, node: onnx.NodeProto) -> Side | None:
    """The side of a pair whose output channels are scaled; None where the node is no such layer."""
    weight = _own_constant(graph, node, 1)
    if weight is None or node.op_type not in _CHAIN_OPS:
        return None
    if node.op_type == "Conv":
        bias = node.input[2] if len(node.input) > 2 else ""
        ok = not bias or _own_constant(graph, node, 2) is not None
        return Side(node.name, node.input[1], 0, bias) if ok else None
    if weight.ndim != 2:
        return None
    if node.op_type == "MatMul":
        bias = _added_bias(graph, node)
        return None if bias is None else Side(node.name, node.input[1], 1, bias)
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0):
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    known = _own_constant(graph, node, 2) if bias else None
    if bias and (known is None or known.ndim != 1):
        return None
    return Side(node.name, node.input[1], 0 if attribute(node, "transB", 0) else 1, bias)


def _incoming(graph: Graph, node: onnx.NodeProto, picture: bool) -> Side | None:
    """The side of a pair whose input channels are scaled; `picture`: channels lie on axis 1 of (n, c, h, w)."""
    weight = _own_constant(graph, node, 1)
    if weight is None or picture != (node.op_type == "Conv"):
        return None
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        if groups == 1:
            return Side(node.name, node.input[1], 1)
        # Depthwise: output channel i sees input channel i alone.
        return Side(node.name, node.input[1], 0) if weight.shape[:2] == (groups, 1) else None
    if weight.ndim != 2 or (node.op_type == "Gemm" and attribute(node, "transA", 0)):
        return None
    return Side(node.name, node.input[1], 1 if attribute(node, "transB", 0) else 0)


def _own_constant(graph: Graph, node: onnx.NodeProto, index: int) -> Array | None:
    """A constant that no other node takes."""
    if len(node.input) <= index or len(graph.consumers(node.input[index])) != 1:
        return None
    return graph.constant(node.input[index])


def _added_bias(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The constant (c,) that the next Add adds to a MatMul; "" where no Add follows, None where it adds more."""
    taker = graph.only_consumer(node.output[0])
    if taker is None or taker.op_type != "Add":
        return ""
    other = taker.input[1] if taker.input[0] == node.output[0] else taker.input[0]
    values = graph.constant(other)
    return other if values is not None and values.ndim == 1 and len(graph.consumers(other)) == 1 else None


def _last_output(graph: Graph, node: onnx.NodeProto) -> str:
    """Behind the Add that is a MatMul's bias."""
    if node.op_type == "MatMul" and _added_bias(graph, node):
        return str(graph.consumers(node.output[0])[0].output[0])
    return str(node.output[0])


def _ranges(graph: Graph, pair: Pair) -> tuple[Scales, Scales]:
    """The largest absolute weight per channel between the two, on either side."""
    return _range(graph, pair.first, pair.channels), _range(graph, pair.second, pair.channels)


def _range(graph: Graph, side: Side, channels: int) -> Scales:
    weight = graph.constant(side.weight)
    assert weight is not None
    by_channel = np.moveaxis(np.abs(weight.astype(np.float64)), side.axis, 0)
    return np.asarray(by_channel.reshape(channels, -1).max(axis=1))


def _balance(graph: Graph, pair: Pair) -> Scales:
    """One step of eq. 11 on one pair; the factors by which the first layer's channels were divided."""
    one, other = _ranges(graph, pair)
    alive = (one > 0) & (other > 0)
    factors = np.ones(pair.channels)
    factors[alive] = np.clip(np.sqrt(one[alive] / other[alive]), 1 / _WIDEST, _WIDEST)
    _scale(graph, pair.first.weight, pair.first.axis, 1 / factors)
    if pair.first.bias:
        _scale(graph, pair.first.bias, 0, 1 / factors)
    _scale(graph, pair.second.weight, pair.second.axis, np.repeat(factors, pair.repeat))
    return factors


def _scale(graph: Graph, tensor: str, axis: int, factors: Scales) -> None:
    values = graph.constant(tensor)
    assert values is not None
    shape = [1] * values.ndim
    shape[axis] = -1
    graph.set_constant(tensor, values * factors.reshape(shape))


def _told(pair: Pair, was: tuple[Scales, Scales], now: tuple[Scales, Scales], factors: Scales) -> Equalized:
    return Equalized(
        pair.first.node,
        pair.second.node,
        pair.channels,
        float(np.maximum(factors, 1 / factors).max()),
        _precision(*was),
        _precision(*now),
    )


def _precision(one: Scales, other: Scales) -> float:
    widest = one.max() * other.max()
    return float((one * other).mean() / widest) if widest > 0 else 1.0


def _draw(model: onnx.ModelProto) -> Floats:
    """Two inputs of the shape that the model declares."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if any(not dim.dim_value for dim in dims[1:]):
        raise CompileError("The model's input has free dimensions besides the batch: give real inputs to check with.")
    shape = [dims[0].dim_value or 2, *(dim.dim_value for dim in dims[1:])]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _check_parity(fp32: Path, out: Path, inputs: Floats) -> None:
    for name, wanted in _run(fp32, inputs).items():
        got = _run(out, inputs)[name]
        reach = max(1.0, float(np.abs(wanted).max()))
        worst = float(np.abs(got - wanted).max())
        if not np.isfinite(worst) or worst > _TOLERANCE * reach:
            raise CompileError(
                f"Equalizing moved output {name} by {worst:.3g} of {reach:.3g}: the model is not homogeneous where it "
                "seemed so, or its numbers overflow. Compile it without equalization."
            )


def _run(model: Path, inputs: Floats) -> dict[str, Floats]:
    import onnx

    engine = open_engine(model)
    try:
        return dict(engine.run({onnx.load(str(model)).graph.input[0].name: inputs}))
    finally:
        engine.close()
