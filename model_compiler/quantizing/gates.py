"""HardSigmoid as a convolution of one pixel and a Clip: ONNX Runtime has integer kernels for these, and none for it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from model_compiler.quantizing.graph import Graph, attribute
from model_compiler.quantizing.ranges import Range, Table

if TYPE_CHECKING:
    import onnx


def integer_gates(model: onnx.ModelProto, table: Table, keep: Collection[str]) -> Table:
    """Rewrites in place what is not in `keep`; the table with the ranges of the tensors between, which nobody saw.

    max(0, min(1, alpha x + beta)) of a picture (n, c, h, w) is a depthwise convolution by alpha with bias beta, and a
    Clip that rounding does on its own. The node keeps its name, and what it writes too.
    """
    graph, ranges, nodes = Graph(model), dict(table.ranges), []
    for node in model.graph.node:
        channels = _channels(graph, node, table) if node.name not in keep else 0
        if channels:
            alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
            nodes += _rewritten(graph, node, channels, alpha, beta)
            seen = table.ranges[node.input[0]]
            ends = [alpha * seen.low + beta, alpha * seen.high + beta, 0.0]
            ranges[f"{node.output[0]}_line"] = Range(min(ends), max(ends))
        else:
            nodes.append(node)
    _replace(model, nodes)
    return Table(table.method, ranges, table.rows)


def _channels(graph: Graph, node: onnx.NodeProto, table: Table) -> int:
    """0 for what is no HardSigmoid of a picture with a known number of channels, or does not only scale another one."""
    if node.op_type != "HardSigmoid" or not {node.input[0], node.output[0]} <= set(table.ranges):
        return 0
    if node.output[0] in graph.outputs or any(each.op_type != "Mul" for each in graph.consumers(node.output[0])):
        return 0
    shape = graph.shape(node.input[0])
    return shape[1] if len(shape) == 4 else 0


def _rewritten(graph: Graph, node: onnx.NodeProto, channels: int, alpha: float, beta: float) -> list[onnx.NodeProto]:
    import onnx

    written = node.output[0]
    line, names = f"{written}_line", [f"{written}_{part}" for part in ("slope", "offset", "zero", "one")]
    slope, offset = np.full((channels, 1, 1, 1), alpha, np.float32), np.full(channels, beta, np.float32)
    for name, values in zip(names, (slope, offset, np.zeros((), np.float32), np.ones((), np.float32)), strict=True):
        graph.model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    make = onnx.helper.make_node
    return [
        make("Conv", [node.input[0], *names[:2]], [line], node.name, group=channels),
        make("Clip", [line, *names[2:]], [written], f"{node.name}_clip"),
    ]


def _replace(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
