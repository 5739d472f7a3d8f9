"""Which nodes compute in int8 and which tensors are rounded: decided from the graph and the layers kept, nothing else.

One rule for both targets: a kept layer reads float. What wrote its input, back through operators that only move
numbers, then writes float too; where the target cannot compute in int8 and write float, it computes in float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from model_compiler.errors import CompileError
from model_compiler.quantizing.graph import Graph, attribute

if TYPE_CHECKING:
    import onnx

Keep = Literal["fp16", "fp32"]
"""What the weights of a layer that is not quantized are stored in."""

HEAVY = frozenset({"Conv", "Gemm", "MatMul"})
LIGHT = frozenset({"Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "GlobalAveragePool", "AveragePool"})
MOVING = frozenset(
    {
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Expand", "Tile"),
        *("DepthToSpace", "SpaceToDepth", "MaxPool", "Pad", "Resize"),
    }
)
RECTIFYING = frozenset({"Relu", "Clip"})
_WRITES_FLOAT = frozenset({"Gemm", "MatMul"})
"""What ONNX Runtime computes in int8 with a float result."""


class Placement(msgspec.Struct, frozen=True):
    """`int8`: nodes computed in int8. `written`: tensors that everyone reads rounded, each with the tensor whose range
    it shares (itself, unless an operator only moved the numbers). `read`: tensors that only the named nodes read
    rounded. `kept`: the layers in float and what their weights are stored in, those that follow from `keep` included.
    """

    int8: frozenset[str]
    written: dict[str, str]
    read: dict[str, tuple[str, ...]]
    kept: dict[str, Keep]


def place_cpu(graph: Graph, known: Collection[str], keep: Mapping[str, Keep]) -> Placement:
    """As ONNX Runtime's CPU provider computes: what reads int8 also writes it, Gemm and MatMul excepted.

    `known`: the tensors with a range.
    """
    kept = _widened(graph, _checked(graph, keep))
    able = {node.name for node in graph.nodes.values() if node.name not in kept and _can_int8(graph, node, known)}
    int8 = _settled(graph, able)
    written = _written(graph, int8)
    return Placement(frozenset(int8), written, _read(graph, int8, written, _activations), kept)


def place_tensorrt(graph: Graph, known: Collection[str], keep: Mapping[str, Keep]) -> Placement:
    """As TensorRT wants it: rounding in front of each input of a layer, and of the branch that joins a residual Add.

    NVIDIA, TensorRT Developer Guide, "Explicit quantization": the other input of the Add comes from the convolution
    that it is fused with, and stays as it is.
    """
    kept = dict(_checked(graph, keep))
    layers = {
        node.name
        for node in graph.nodes.values()
        if node.op_type in {*HEAVY, "ConvTranspose"} and node.name not in kept and _is_layer(graph, node, known)
    }
    branches = {
        node.name: branch
        for node in graph.nodes.values()
        if node.op_type == "Add" and node.name not in kept and (branch := _branch(graph, node, layers, known))
    }

    def rounded(graph: Graph, node: onnx.NodeProto) -> list[str]:
        return [branches[node.name]] if node.name in branches else _activations(graph, node)

    int8 = layers | set(branches)
    return Placement(frozenset(int8), {}, _read(graph, int8, {}, rounded), kept)


def is_depthwise(graph: Graph, node: onnx.NodeProto) -> bool:
    """A convolution in which each output channel sees one input channel and no other output does."""
    weight = graph.constant(node.input[1]) if node.op_type == "Conv" else None
    return weight is not None and weight.shape[1] == 1 and attribute(node, "group", 1) == weight.shape[0]


def weight_axis(node: onnx.NodeProto) -> int:
    """The axis of a layer's weight that counts its output channels."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else 1


def _checked(graph: Graph, keep: Mapping[str, Keep]) -> dict[str, Keep]:
    unknown = [name for name in keep if name not in graph.nodes]
    if unknown:
        raise CompileError(
            f"The prepared model has no node {unknown[0]!r} to keep. Name nodes as prepare() writes them, such as "
            f"{next(iter(graph.nodes), 'none')!r}."
        )
    return dict(keep)


def _widened(graph: Graph, keep: Mapping[str, Keep]) -> dict[str, Keep]:
    """`keep`, and every node that must write float for these to read float."""
    kept = dict(keep)
    for name, precision in keep.items():
        waiting = [tensor for tensor in graph.nodes[name].input if tensor]
        while waiting:
            node = graph.producer(waiting.pop())
            if node is None or node.op_type in _WRITES_FLOAT or keep.get(node.name) is not None:
                continue
            if kept.get(node.name) != "fp32":
                kept[node.name] = precision
            if node.op_type in MOVING or node.op_type in RECTIFYING:
                waiting.append(node.input[0])
    return kept


def _activations(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """The inputs of a node that are rounded when it computes in int8."""
    if node.op_type in ("MatMul", "Add", "Mul", "Concat"):
        return [name for name in dict.fromkeys(node.input) if graph.constant(name) is None]
    return [name for name in node.input[:1] if name]


def _can_int8(graph: Graph, node: onnx.NodeProto, known: Collection[str]) -> bool:
    if node.op_type in HEAVY:
        return _is_layer(graph, node, known)
    if node.op_type in LIGHT:
        return all(name in known for name in (*node.input, *node.output))
    return (
        node.op_type in MOVING and all(name in known for name in (node.input[0], *node.output)) and _moves(graph, node)
    )


def _is_layer(graph: Graph, node: onnx.NodeProto, known: Collection[str]) -> bool:
    """Multiplies what is known by a constant weight, adding at most a constant; a MatMul may also take two knowns."""
    if not all(name in known for name in (*_activations(graph, node), *node.output)):
        return False
    if node.op_type == "MatMul" and all(graph.constant(name) is None for name in node.input):
        return True
    weight = graph.constant(node.input[1])
    if weight is None or weight.dtype != "float32" or (node.op_type in ("Gemm", "MatMul") and weight.ndim != 2):
        return False
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0):
        return False
    return len(node.input) < 3 or not node.input[2] or _is_bias(graph, node)


def _is_bias(graph: Graph, node: onnx.NodeProto) -> bool:
    """One constant a channel; Gemm's may also be of another shape, or scaled by beta, and is then no such thing."""
    bias, weight = graph.constant(node.input[2]), graph.constant(node.input[1])
    if bias is None or weight is None or bias.ndim != 1:
        return False
    return node.op_type != "Gemm" or (
        attribute(node, "beta", 1.0) == 1.0 and bias.shape == (weight.shape[weight_axis(node)],)
    )


def _moves(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether the operator writes none but the numbers it read, or zero."""
    if node.op_type == "MaxPool":
        return len(node.output) == 1
    if node.op_type == "Resize":  # between pixels, versions of ONNX Runtime round integers differently
        return bool(attribute(node, "mode", b"nearest") == b"nearest")
    if node.op_type == "Pad" and len(node.input) > 2 and node.input[2]:
        value = graph.constant(node.input[2])
        return value is not None and not value.any()
    return True


def _settled(graph: Graph, able: set[str]) -> set[str]:
    """What remains when operators between layers compute in int8 only where int8 arrives and is wanted.

    The largest such set: rounding what is float on both sides costs time and accuracy and wins nothing.
    """
    int8 = set(able)
    while True:
        idle = {
            name
            for name in int8
            if graph.nodes[name].op_type not in HEAVY
            and not (_arrives(graph, name, int8) and _wanted(graph, name, int8))
        }
        if not idle:
            return int8
        int8 -= idle


def _arrives(graph: Graph, name: str, int8: set[str]) -> bool:
    node = graph.nodes[name]
    arriving = (_comes_rounded(graph, tensor, int8) for tensor in _activations(graph, node))
    return all(arriving) if node.op_type in MOVING else any(arriving)


def _comes_rounded(graph: Graph, tensor: str, int8: set[str]) -> bool:
    node = graph.producer(tensor)
    if node is not None and node.op_type in RECTIFYING and _absorbed(graph, node):
        node = graph.producer(node.input[0])
    return node is not None and node.name in int8 and node.op_type not in _WRITES_FLOAT


def _wanted(graph: Graph, name: str, int8: set[str]) -> bool:
    tensors = (_rounded_at(graph, tensor) for tensor in graph.nodes[name].output)
    return any(
        taker.name in int8 and tensor in _activations(graph, taker)
        for tensor in tensors
        for taker in graph.consumers(tensor)
    )


def _rounded_at(graph: Graph, tensor: str) -> str:
    """Where what a node writes is rounded: behind a ReLU or Clip that nothing else bypasses."""
    taker = graph.only_consumer(tensor)
    if taker is not None and taker.op_type in RECTIFYING and _absorbed(graph, taker):
        return str(taker.output[0])
    return tensor


def _absorbed(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether rounding to levels within the limits of a ReLU or Clip does its work: zero must lie within them."""
    if graph.only_consumer(node.input[0]) is None:
        return False
    if node.op_type == "Relu":
        return True
    limits = [graph.constant(name) for name in node.input[1:] if name]
    if any(limit is None for limit in limits):
        return False
    low, high = (graph.constant(name) if name else None for name in (*node.input[1:], "", "")[:2])
    return (low is None or float(low) <= 0) and (high is None or float(high) >= 0)


def _written(graph: Graph, int8: set[str]) -> dict[str, str]:
    """Tensors rounded where they are written, in graph order, each with the tensor whose range it shares."""
    written: dict[str, str] = {}
    for node in graph.model.graph.node:
        if node.name not in int8 or node.op_type in _WRITES_FLOAT:
            continue
        for tensor in node.output:
            place = _rounded_at(graph, tensor)
            written[place] = written.get(node.input[0], place) if node.op_type in MOVING else place
    return written


def _read(
    graph: Graph,
    int8: Collection[str],
    written: Collection[str],
    rounded: Callable[[Graph, onnx.NodeProto], list[str]],
) -> dict[str, tuple[str, ...]]:
    """Tensors that come in float and are rounded for the nodes that compute in int8, in graph order."""
    read: dict[str, list[str]] = {}
    for node in graph.model.graph.node:
        if node.name in int8:
            for tensor in rounded(graph, node):
                if tensor not in written:
                    read.setdefault(tensor, []).append(node.name)
    return {tensor: tuple(names) for tensor, names in read.items()}


def _branch(graph: Graph, node: onnx.NodeProto, layers: Collection[str], known: Collection[str]) -> str:
    """The input of an Add that does not come from the layer it is fused with; empty where it is no such join."""
    if not all(name in known for name in node.input):
        return ""
    for tensor, other in (node.input, node.input[::-1]):
        maker = graph.producer(tensor)
        if maker is not None and maker.name in layers and graph.only_consumer(tensor) is not None:
            return str(other)
    return ""
