"""Equal forms that can be quantized for forms that cannot: what exporters write and what integer kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model_compiler.quantizing.graph import Graph, attribute

if TYPE_CHECKING:
    import onnx

_LOWEST = -1e30
"""Padding at or below it stands for minus infinity."""


def rewrite(model: onnx.ModelProto) -> None:
    """Changes `model` in place; its nodes must have names of their own. The function that it computes stays.

    - Gemm: alpha and beta multiplied into constants, a bias of shape (1, n) made (n,).
    - Pad with minus infinity in front of a MaxPool: made the pool's own padding, since no integer is infinite.
    - ReduceMean over all pixels: GlobalAveragePool, which has an integer kernel, and a Flatten where it dropped axes.
    """
    graph = Graph(model)
    for node in list(model.graph.node):
        if node.op_type == "Gemm":
            _plain_gemm(graph, node)
        elif node.op_type == "MaxPool":
            _own_padding(graph, node)
        elif node.op_type == "ReduceMean":
            _global_pool(graph, node)


def _plain_gemm(graph: Graph, node: onnx.NodeProto) -> None:
    _scale_constant(graph, node, 1, "alpha")
    if len(node.input) > 2 and node.input[2]:
        _scale_constant(graph, node, 2, "beta")
        bias = graph.constant(node.input[2])
        if bias is not None and bias.ndim == 2 and bias.shape[0] == 1:
            _replace(graph, node, 2, bias[0])


def _scale_constant(graph: Graph, node: onnx.NodeProto, index: int, name: str) -> None:
    factor, values = attribute(node, name, 1.0), graph.constant(node.input[index])
    if factor != 1.0 and values is not None:
        _replace(graph, node, index, values * np.float32(factor))
        _set(node, name, 1.0)


def _replace(graph: Graph, node: onnx.NodeProto, index: int, values: np.ndarray) -> None:
    """Gives the node a constant of its own: another may read the old one."""
    name = f"{node.input[index]}_{node.name}"
    graph.add_constant(name, values.astype(np.float32))
    node.input[index] = name


def _own_padding(graph: Graph, node: onnx.NodeProto) -> None:
    pad = graph.producer(node.input[0])
    if pad is None or pad.op_type != "Pad" or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return
    amounts, value = graph.constant(pad.input[1]), graph.constant(pad.input[2]) if len(pad.input) > 2 else None
    if amounts is None or value is None or float(value) > _LOWEST or attribute(pad, "mode", b"constant") != b"constant":
        return
    if len(pad.input) > 3 or amounts.reshape(2, -1)[:, :2].any() or graph.only_consumer(pad.output[0]) is None:
        return
    around = amounts.reshape(2, -1)[:, 2:].reshape(-1)
    total = around + np.array(attribute(node, "pads", [0] * len(around)))
    window = np.array(attribute(node, "kernel_shape", []))
    if (around < 0).any() or (total.reshape(2, -1) >= window).any():
        return
    _set(node, "pads", [int(each) for each in total])
    node.input[0] = pad.input[0]
    graph.model.graph.node.remove(pad)


def _global_pool(graph: Graph, node: onnx.NodeProto) -> None:
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1:
        constant = graph.constant(node.input[1])
        axes = None if constant is None else constant.tolist()
    rank = len(graph.shape(node.input[0]))
    if rank != 4 or axes is None or {axis % rank for axis in axes} != {2, 3}:
        return
    if not attribute(node, "keepdims", 1):
        _flatten_behind(graph.model.graph, node)
    node.op_type = "GlobalAveragePool"
    del node.attribute[:], node.input[1:]


def _flatten_behind(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """From (n, c, 1, 1), which a pool writes, to the (n, c) that the node wrote."""
    import onnx

    written = node.output[0]
    node.output[0] = f"{written}_pooled"
    flat = onnx.helper.make_node("Flatten", [node.output[0]], [written], f"{node.name}_flat", axis=1)
    graph.node.insert(next(index for index, each in enumerate(graph.node) if each.name == node.name) + 1, flat)


def _set(node: onnx.NodeProto, name: str, value: float | list[int]) -> None:
    import onnx

    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
