"""Where an int8 file rounds, in the words of its float model: one place for each tensor and the weights it meets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.quantizing.graph import Array, Graph, attribute
from model_compiler.quantizing.placement import HEAVY, MOVING, RECTIFYING
from model_compiler.quantizing.ranges import Range

if TYPE_CHECKING:
    import onnx

_PASSING = MOVING | RECTIFYING | {"Identity", "Dropout"}
_KEEPING = _PASSING | {"LeakyRelu", "PRelu", "GlobalAveragePool", "AveragePool", "ReduceMean"}
"""Operators behind which a channel is as wide or narrow beside the others as before: one fault, one place. Those that
are not in _PASSING compute with it, too, and are float or not by themselves."""


class Rounding(msgspec.Struct, frozen=True):
    """One quantizer of an activation: `scale` and `zero_point` are scalars, `read` the tensor behind it in the file."""

    tensor: str
    scale: Array
    zero_point: Array
    read: str

    @property
    def levels(self) -> int:
        """How many steps lie between the ends of the range."""
        ends = np.iinfo(self.zero_point.dtype)
        return int(ends.max) - int(ends.min)

    @property
    def range(self) -> Range:
        """The real values of the first and the last level."""
        ends, zero = np.iinfo(self.zero_point.dtype), int(self.zero_point)
        return Range((ends.min - zero) * float(self.scale), (ends.max - zero) * float(self.scale))

    def __call__(self, values: Array) -> Array:
        """`values` float as they are after QuantizeLinear and DequantizeLinear."""
        ends = np.iinfo(self.zero_point.dtype)
        levels = np.rint(values / self.scale) + self.zero_point.astype(np.float32)
        return np.asarray((np.clip(levels, ends.min, ends.max) - self.zero_point.astype(np.float32)) * self.scale)


class Place(msgspec.Struct, frozen=True):
    """A tensor that is rounded, with all that it passes through unchanged, and the weights that it is multiplied with.

    `node` writes the tensor, or takes it where it is the model's input. `roundings` is empty where only weights are
    rounded. `weights`: what the file has in place of each float weight, dequantized. `takers`: the nodes that compute
    with it; kept in float, they read it float, and nothing here is rounded.
    """

    node: str
    tensor: str
    roundings: tuple[Rounding, ...]
    weights: dict[str, Array]
    takers: tuple[str, ...]


def places_of(fp32: Graph, int8: Graph) -> list[Place]:
    """Every place where `int8` rounds, in the order of the graph of `fp32`, the prepared model it was made from."""
    roundings = _roundings(fp32, int8)
    weights = _weights(fp32, int8)
    roots: dict[str, list[str]] = {}
    for tensor in [*roundings, *_weighted_inputs(fp32, weights)]:
        members = roots.setdefault(_root(fp32, tensor), [])
        if tensor not in members:
            members.append(tensor)
    order = {name: index for index, name in enumerate(_tensors(fp32))}
    return [_place(fp32, root, roots[root], roundings, weights) for root in sorted(roots, key=order.__getitem__)]


def in_float(fp32: Graph, int8: Graph) -> list[str]:
    """Convolutions and products of matrices that `int8` computes in float although nothing else of their kind does."""
    quantized = {node for node, _ in _weights(fp32, int8)}
    kinds = {fp32.nodes[node].op_type for node in quantized}
    weighted = [node for node in fp32.model.graph.node if node.op_type in kinds and _weight_of(fp32, node)]
    return [node.name for node in weighted if node.name not in quantized]


def _place(
    graph: Graph,
    root: str,
    tensors: list[str],
    roundings: dict[str, Rounding],
    weights: dict[tuple[str, str], Array],
) -> Place:
    writer, takers = graph.producer(root), list(dict.fromkeys(_takers(graph, root)))
    return Place(
        takers[0] if writer is None else writer.name,
        tensors[0],
        tuple(roundings[each] for each in tensors if each in roundings),
        {weight: values for (node, weight), values in weights.items() if node in takers},
        tuple(takers),
    )


def _roundings(fp32: Graph, int8: Graph) -> dict[str, Rounding]:
    """By tensor of the float model. A tensor with a pair for each taker is rounded alike by all of them."""
    known = set(_tensors(fp32))
    found: dict[str, Rounding] = {}
    for node in int8.model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in known and node.input[0] not in found:
            scale, zero_point = int8.constant(node.input[1]), _zero_point(int8, node)
            back = [each for each in int8.consumers(node.output[0]) if each.op_type == "DequantizeLinear"]
            if scale is not None and scale.size == 1 and back:
                found[node.input[0]] = Rounding(node.input[0], scale.reshape(()), zero_point, back[0].output[0])
    return found


def _zero_point(int8: Graph, node: onnx.NodeProto) -> Array:
    """Where the file names none, signed or unsigned is in `output_dtype`, and uint8 by default."""
    if len(node.input) > 2 and (values := int8.constant(node.input[2])) is not None:
        return values.reshape(())
    import onnx

    kind = attribute(node, "output_dtype", 0) or onnx.TensorProto.UINT8
    return np.zeros((), onnx.helper.tensor_dtype_to_np_dtype(kind))


def _weights(fp32: Graph, int8: Graph) -> dict[tuple[str, str], Array]:
    """(node, float weight) -> what the file multiplies with instead, float32 of the same shape."""
    found = {}
    for node in int8.model.graph.node:
        original = fp32.nodes.get(node.name)
        weight = None if original is None else _weight_of(fp32, original)
        if weight is not None and original is not None:
            place = list(original.input).index(weight)
            values = _dequantized(int8, node.input[place]) if len(node.input) > place else None
            if values is not None:
                found[(node.name, weight)] = values
    return found


def _weight_of(graph: Graph, node: onnx.NodeProto) -> str | None:
    if node.op_type not in HEAVY | {"ConvTranspose"}:
        return None
    for name in node.input[:2]:
        values = graph.constant(name)
        if values is not None and values.ndim >= 2:
            return str(name)
    return None


def _dequantized(graph: Graph, tensor: str) -> Array | None:
    node = graph.producer(tensor)
    if node is None or node.op_type != "DequantizeLinear":
        return None
    levels, scale = graph.constant(node.input[0]), graph.constant(node.input[1])
    if levels is None or scale is None:
        return None
    zero_point = graph.constant(node.input[2]) if len(node.input) > 2 else None
    exact = levels.astype(np.float32)
    return np.asarray(
        (exact - _along(zero_point, exact.ndim, node) if zero_point is not None else exact)
        * _along(scale, exact.ndim, node),
        np.float32,
    )


def _along(values: Array, rank: int, node: onnx.NodeProto) -> Array:
    """One value, or one per slice of the node's axis, shaped to meet a tensor of `rank` axes."""
    if values.size == 1:
        return values.reshape(()).astype(np.float32)
    shape = [1] * rank
    shape[attribute(node, "axis", 1)] = -1
    return values.reshape(shape).astype(np.float32)


def _weighted_inputs(graph: Graph, weights: dict[tuple[str, str], Array]) -> list[str]:
    """The activations that meet quantized weights."""
    return [next(name for name in graph.nodes[node].input if graph.constant(name) is None) for node, _ in weights]


def _root(graph: Graph, tensor: str) -> str:
    """Before everything that keeps the tensor's channels."""
    while (node := graph.producer(tensor)) is not None and node.op_type in _KEEPING:
        tensor = node.input[0]
    return tensor


def _takers(graph: Graph, root: str) -> Iterator[str]:
    """Everything that computes with the tensor, taken directly or handed on."""
    for node in graph.consumers(root):
        if node.op_type not in _PASSING:
            yield node.name
        if node.op_type in _KEEPING:
            for name in node.output:
                yield from _takers(graph, name)


def _tensors(graph: Graph) -> list[str]:
    """Activations in the order of the graph."""
    inputs = [value.name for value in graph.model.graph.input]
    return [*inputs, *(name for node in graph.model.graph.node for name in node.output if name)]
