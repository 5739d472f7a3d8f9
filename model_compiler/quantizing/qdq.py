"""Writes a placement into a model: integers for weights, QuantizeLinear and DequantizeLinear around what is rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.quantizing.graph import Array, Graph
from model_compiler.quantizing.half import to_half
from model_compiler.quantizing.levels import (
    Levels,
    fit_bias,
    symmetric,
    to_int8,
    to_int32,
    unsigned,
    weight_levels,
)
from model_compiler.quantizing.placement import RECTIFYING, Placement, is_depthwise, weight_axis
from model_compiler.quantizing.ranges import Table

if TYPE_CHECKING:
    import onnx

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class Form(msgspec.Struct, frozen=True):
    """How a target wants integers.

    `signed`: activations int8 around zero, else uint8. `integer_bias`: biases as int32 in steps of input times weight.
    `pairs_fit`: no two neighbouring weights exceed together what 16 bits take, see `weight_levels`. `stored_half`: what
    is kept fp16 is only stored so and cast back to float32, which ONNX Runtime does once, at load.
    """

    signed: bool
    integer_bias: bool
    pairs_fit: bool
    stored_half: bool


CPU = Form(signed=False, integer_bias=True, pairs_fit=True, stored_half=True)
TENSORRT = Form(signed=True, integer_bias=False, pairs_fit=False, stored_half=False)


def write(graph: Graph, placement: Placement, table: Table, form: Form) -> onnx.ModelProto:
    """The quantized model, made of a copy of the graph's nodes; its tensors keep their names.

    A tensor `t` that is rounded becomes `t_QuantizeLinear_Output` and `t_DequantizeLinear_Output`, with `t_scale` and
    `t_zero_point`; a weight `w` becomes `w_quantized` with `w_scale` and `w_zero_point`.
    """
    writer = _Writer(graph, placement, table, form)
    nodes = [each for name in _inputs(graph) for each in writer.rounding(name)]
    for node in graph.model.graph.node:
        nodes += writer.node(node)
    return writer.finished(nodes)


def _inputs(graph: Graph) -> list[str]:
    return [value.name for value in graph.model.graph.input]


class _Writer:
    def __init__(self, graph: Graph, placement: Placement, table: Table, form: Form) -> None:
        self._graph, self._placement, self._table, self._form = graph, placement, table, form
        self._constants: dict[str, Array] = {}
        self._dequantized: dict[tuple[str, bytes], str] = {}

    def node(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """What comes before the node, the node itself, what comes after it."""
        own = type(node)()
        own.CopyFrom(node)
        for index, name in enumerate(node.input):
            own.input[index] = self._source(name, node)
        if node.name in self._placement.int8 and node.op_type in _LAYERS:
            yield from self._integer_constants(node, own)
        elif self._placement.kept.get(node.name) == "fp16" and self._form.stored_half:
            yield from self._half_constants(node, own)
        for index, name in enumerate(node.output):
            own.output[index] = self._raw(name)
        yield own
        for name in node.output:
            yield from self.rounding(name)

    def rounding(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """The pair behind `tensor`, where it is rounded."""
        placement = self._placement
        if tensor not in placement.written and tensor not in placement.read:
            return
        levels, root = self.levels(tensor), placement.written.get(tensor, tensor)
        ends = [f"{root}_scale", f"{root}_zero_point"]
        self._constants.update(zip(ends, (levels.scale, levels.zero_point), strict=True))
        import onnx

        middle, after = f"{tensor}_QuantizeLinear_Output", f"{tensor}_DequantizeLinear_Output"
        if self._is_rounded_output(tensor):
            after = tensor
        make = onnx.helper.make_node
        yield make("QuantizeLinear", [self._raw(tensor), *ends], [middle], f"{tensor}_QuantizeLinear")
        yield make("DequantizeLinear", [middle, *ends], [after], f"{tensor}_DequantizeLinear")

    def levels(self, tensor: str) -> Levels:
        root = self._placement.written.get(tensor, tensor)
        if self._form.signed:
            return symmetric(self._table.ranges[root])
        maker = self._graph.producer(root)
        rectified = maker is not None and maker.op_type in RECTIFYING
        return unsigned(self._table.ranges[root], rectified=rectified)

    def finished(self, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
        import onnx

        model = type(self._graph.model)()
        model.CopyFrom(self._graph.model)
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        added = [
            onnx.numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in self._constants.items()
        ]
        model.graph.initializer.extend(added)
        return model

    def _source(self, tensor: str, reader: onnx.NodeProto) -> str:
        """The name under which `reader` reads `tensor`."""
        placement = self._placement
        if self._is_rounded_output(tensor):
            return tensor
        if tensor in placement.written or reader.name in placement.read.get(tensor, ()):
            return f"{tensor}_DequantizeLinear_Output"
        return tensor

    def _is_rounded_output(self, tensor: str) -> bool:
        return tensor in self._placement.written and tensor in self._graph.outputs

    def _raw(self, tensor: str) -> str:
        """The name under which a tensor is written, before it is rounded: an output of the model keeps its own."""
        return f"{tensor}_QuantizeLinear_Input" if self._is_rounded_output(tensor) else tensor

    def _integer_constants(self, node: onnx.NodeProto, own: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        weight = self._graph.constant(node.input[1])
        if weight is None:
            return
        axis = weight_axis(node)
        levels = weight_levels(weight, axis, pairs_fit=self._form.pairs_fit and not is_depthwise(self._graph, node))
        bias = self._graph.constant(node.input[2]) if len(node.input) > 2 and self._form.integer_bias else None
        scale = self.levels(node.input[0]).scale
        if bias is not None:
            levels = fit_bias(levels, scale, bias, weight, axis)
        integers = to_int8(weight, axis, levels)
        yield from self._dequantize(node, own, 1, integers, levels, axis)
        if bias is not None:
            steps = (scale * levels.scale).astype(np.float32)
            zeros = np.zeros(len(steps), np.int32)
            yield from self._dequantize(node, own, 2, to_int32(bias, steps), Levels(steps, zeros), 0)

    def _dequantize(
        self, node: onnx.NodeProto, own: onnx.NodeProto, index: int, integers: Array, levels: Levels, axis: int
    ) -> Iterator[onnx.NodeProto]:
        """Makes input `index` read the integers; a constant that several nodes take is stored once if it can be."""
        import onnx

        name = node.input[index]
        key = (name, levels.scale.tobytes() + bytes([axis]))
        if key not in self._dequantized:
            stem = name if (name, b"") not in self._dequantized else f"{name}_{node.name}"
            self._dequantized[(name, b"")] = stem
            self._dequantized[key] = f"{stem}_DequantizeLinear_Output"
            ends = [f"{stem}_quantized", f"{stem}_scale", f"{stem}_zero_point"]
            self._constants.update(zip(ends, (integers, levels.scale, levels.zero_point), strict=True))
            yield onnx.helper.make_node(
                "DequantizeLinear", ends, [self._dequantized[key]], f"{stem}_DequantizeLinear", axis=axis
            )
        own.input[index] = self._dequantized[key]

    def _half_constants(self, node: onnx.NodeProto, own: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Stores the node's weights as float16, cast back for float32 arithmetic; a bias is too small to matter."""
        import onnx

        for index, name in enumerate(node.input):
            values = self._graph.constant(name) if name else None
            if values is None or values.dtype != np.float32 or values.ndim < 2:
                continue
            own.input[index] = f"{name}_half_Cast_Output"
            if f"{name}_half" not in self._constants:
                self._constants[f"{name}_half"] = to_half(name, values)
                yield onnx.helper.make_node("Cast", [f"{name}_half"], [own.input[index]], f"{name}_half_Cast", to=1)
