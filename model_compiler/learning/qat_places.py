"""Where a captured network is rounded in training: where the int8 file that it becomes will be.

The rules are those of `quantizing.placement`, which decides for ONNX graphs, in the words of torch.export. Graphs here
are torch.fx's; only `learning.qat_quantizer` imports this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

_CONVOLUTIONS = {f"conv{n}d": 0 for n in (1, 2, 3)}
_TRANSPOSED = {f"conv_transpose{n}d": 1 for n in (1, 2, 3)}
WEIGHT_AXIS = _CONVOLUTIONS | _TRANSPOSED | {"linear": 0}
"""The axis of output channels in the weights of each operator that has some."""

_PRODUCTS = frozenset({"linear", "matmul", "mm", "bmm"})
_CPU_LAYERS = _PRODUCTS | _CONVOLUTIONS.keys()
_TENSORRT_LAYERS = _CPU_LAYERS | _TRANSPOSED.keys()
_LIGHT = frozenset({"add", "mul", "cat", "sigmoid", "leaky_relu", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d"})
_POOLINGS = frozenset({"adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "mean", "sum", "amax", "adaptive_max_pool2d"})
_CLIPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
_DROPOUTS = frozenset({"dropout", "feature_dropout"})
_MOVES = _DROPOUTS | {
    *("flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "slice", "contiguous", "clone"),
    *("expand", "max_pool1d", "max_pool2d", "pad", "constant_pad_nd", "upsample_nearest2d", "pixel_shuffle"),
}
"""What hands numbers on as they came, and so already rounded; a dropout is not in the file."""


class Places(NamedTuple):
    """`layers`: operators whose weights are rounded. `written`: nodes that everyone reads rounded. `read`: (source,
    reader), where only that reader does.
    """

    layers: list[Node]
    written: list[Node]
    read: list[tuple[Node, Node]]


def cpu_places(graph: Graph) -> Places:
    """As ONNX Runtime's file is rounded: what reads int8 also writes it, products excepted."""
    int8 = _settled(graph)
    writers = [node for node in int8 if operator(node) not in _PRODUCTS]
    read = [
        _before_dropout(source, node)
        for node in int8
        for source in _activations(node)
        if _origin(source) not in writers
    ]
    return Places(_with_weights(int8), [_after_fusion(node) for node in writers], read)


def tensorrt_places(graph: Graph) -> Places:
    """As TensorRT's file is rounded: in front of each layer, and the branch that joins a residual addition."""
    layers = [node for node in graph.nodes if operator(node) in _TENSORRT_LAYERS]
    read = [_before_dropout(source, node) for node in layers for source in _activations(node)]
    branches = [(other, node) for node in graph.nodes if operator(node) == "add" for other in _branch(node, layers)]
    return Places(_with_weights(layers), [], [*read, *branches])


def operator(node: Node) -> str:
    """The operator's plain name: "add" for `aten.add.Tensor` and `aten.add_.Tensor`; empty for what is none."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return str(node.target.name()).partition("::")[2].partition(".")[0].rstrip("_")


def is_depthwise(node: Node) -> bool:
    """A convolution in which each output channel sees one input channel and no other output does."""
    weight = node.args[1].meta["val"]
    groups = node.args[6] if operator(node) in _CONVOLUTIONS and len(node.args) > 6 else 1
    return bool(weight.shape[1] == 1 and groups == weight.shape[0])


def _with_weights(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if operator(node) in WEIGHT_AXIS]


def _settled(graph: Graph) -> list[Node]:
    """The nodes that compute in int8, in order: of those between layers only where int8 arrives and is wanted."""
    heads = _heads(graph)
    int8 = [node for node in graph.nodes if node not in heads and _can_int8(node)]
    while True:
        writers = {node for node in int8 if operator(node) not in _PRODUCTS}
        stay = [node for node in int8 if operator(node) in _CPU_LAYERS or _is_useful(node, int8, writers)]
        if len(stay) == len(int8):
            return int8
        int8 = stay


def _can_int8(node: Node) -> bool:
    name = operator(node)
    if name == "mean":  # over all pixels it becomes a GlobalAveragePool
        return node.args[0].meta["val"].ndim == 4 and {axis % 4 for axis in node.args[1]} == {2, 3}
    if name in _LIGHT:
        takes = node.args[0] if name == "cat" else node.args[:2] if name in ("add", "mul") else node.args[:1]
        return _is_activation(node) and all(isinstance(each, Node) and _is_activation(each) for each in takes)
    return name in _CPU_LAYERS


def _is_useful(node: Node, int8: list[Node], writers: set[Node]) -> bool:
    arrives = any(_origin(source) in writers for source in _activations(node))
    return arrives and any(taker in int8 for taker in _takers(_after_fusion(node)))


def _heads(graph: Graph) -> set[Node]:
    """The convolutions after which comes neither a layer nor a pooling: they answer, and in float."""
    leading: set[Node] = set()
    heads = set()
    for node in reversed(graph.nodes):
        leads = any(user in leading for user in node.users)
        if operator(node) in _CONVOLUTIONS and not leads:
            heads.add(node)
        if leads or operator(node) in _CPU_LAYERS | _POOLINGS:
            leading.add(node)
    return heads


def _activations(node: Node) -> list[Node]:
    """The inputs that are rounded when the node computes in int8."""
    sources = node.args[:1] if operator(node) in WEIGHT_AXIS else node.all_input_nodes
    return [each for each in sources if _is_activation(each)]


def _is_activation(node: Node) -> bool:
    value = node.meta.get("val")
    return node.op != "get_attr" and isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_fused(node: Node) -> bool:
    """A batch norm or clip that runs within what it follows: only what leaves it is rounded."""
    if operator(node) == "batch_norm":
        return operator(node.args[0]) in WEIGHT_AXIS and len(node.args[0].users) == 1
    return operator(node) in _CLIPS and len(node.args[0].users) == 1


def _after_fusion(node: Node) -> Node:
    while len(node.users) == 1 and _is_fused(next(iter(node.users))):
        (node,) = node.users
    return node


def _origin(node: Node) -> Node:
    """What computed the numbers of `node`, before everything that moves or clips them."""
    while operator(node) in _MOVES or _is_fused(node):
        node = node.args[0]
    return node


def _takers(node: Node) -> Iterator[Node]:
    """What computes with the numbers of `node`, moved or not."""
    for user in node.users:
        if operator(user) in _MOVES:
            yield from _takers(user)
        elif node in _activations(user):
            yield user


def _before_dropout(source: Node, reader: Node) -> tuple[Node, Node]:
    """Rounded behind a dropout, the numbers that it scales up would widen the range."""
    while operator(source) in _DROPOUTS:
        source, reader = source.args[0], source
    return source, reader


def _branch(node: Node, layers: list[Node]) -> list[Node]:
    """The input of an addition that does not come from the layer it is fused with; none where it is no such join.

    NVIDIA, TensorRT Developer Guide, "Explicit quantization".
    """
    if not all(isinstance(each, Node) and _is_activation(each) for each in node.args[:2]):
        return []
    for source, other in (node.args[:2], node.args[1::-1]):
        maker = source.args[0] if operator(source) == "batch_norm" and _is_fused(source) else source
        if maker in layers and len(source.users) == 1 and not _adds_its_bias_apart(maker):
            return [other]
    return []


def _adds_its_bias_apart(node: Node) -> bool:
    """A linear layer on more than two axes, which ONNX spells MatMul and Add."""
    return operator(node) == "linear" and len(node.args) > 2 and node.meta["val"].ndim > 2
