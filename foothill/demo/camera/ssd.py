"""SSD detectors of TensorFlow's object detection API, frozen, as ONNX: the network and the decoding of its boxes. What
prepares the picture and suppresses what overlaps is left out of the graph: a node does that by the bundle's manifest.

Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv:1512.02325; anchors and box coder as in the API's
`multiple_grid_anchor_generator.py` and `faster_rcnn_box_coder.py`, with the values that all its SSD models have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from foothill.demo.camera.frozen import Node

Floats = npt.NDArray[np.float32]

SIDE = 300
INPUT, BOXES, SCORES = "image", "boxes", "scores"
_GRIDS = (19, 10, 5, 3, 2, 1)
_LEAST, _MOST = 0.2, 0.95
_RATIOS = (1.0, 2.0, 0.5, 3.0, 1 / 3)
_LOWEST = ((0.1, 1.0), (_LEAST, 2.0), (_LEAST, 0.5))
_CENTRE_SCALE, _SIDE_SCALE = 10.0, 5.0
_FOLDED: Mapping[str, Callable[..., Floats]] = {
    "Identity": lambda one: one,
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Rsqrt": lambda one: np.asarray(1.0 / np.sqrt(one), np.float32),
}
_ENCODED, _LOGITS = "Squeeze", "concat_1"


def to_onnx(nodes: Mapping[str, Node], classes: int) -> bytes:
    """A model from `image` FP32 [n, 3, 300, 300], of -1 to 1, red first, to `boxes` [n, 1917, 4] (top, left, bottom,
    right, as shares) and `scores` [n, 1917, classes]. Raises ValueError for a graph of another kind."""
    try:
        return _Graph(nodes).model(classes)
    except KeyError as error:
        raise ValueError(f"This is no SSD detector: it has no {error}.") from error


def anchors() -> Floats:
    """[1917, 4]: centre y, centre x, height and width, as shares of the picture."""
    return np.concatenate([_of_grid(level, grid) for level, grid in enumerate(_GRIDS)]).astype(np.float32)


def _of_grid(level: int, grid: int) -> npt.NDArray[np.float64]:
    scales = [*np.linspace(_LEAST, _MOST, len(_GRIDS)), 1.0]
    shapes: tuple[tuple[float, float], ...] = _LOWEST
    if level:
        between = float(np.sqrt(scales[level] * scales[level + 1]))
        shapes = (*((float(scales[level]), ratio) for ratio in _RATIOS), (between, 1.0))
    sides = np.array([(scale / np.sqrt(ratio), scale * np.sqrt(ratio)) for scale, ratio in shapes])
    steps = (np.arange(grid) + 0.5) / grid
    y, x = np.meshgrid(steps, steps, indexing="ij")
    centres = np.repeat(np.stack([y.ravel(), x.ravel()], axis=1), len(sides), axis=0)
    return np.concatenate([centres, np.tile(sides, (grid * grid, 1))], axis=1)


class _Graph:
    """An ONNX graph in the making, channels first. `_done` has the ONNX tensor of each of TensorFlow's nodes."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._made: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._done: dict[str, str] = {}

    def model(self, classes: int) -> bytes:
        encoded, logits = (self._joined(self._nodes[self._source(name)]) for name in (_ENCODED, _LOGITS))
        self._decoded(encoded)
        sure = self._add("Sigmoid", [logits])
        ends = [self._numbers([1]), self._numbers([classes + 1]), self._numbers([2])]
        self._add("Slice", [sure, *ends], SCORES)
        return self._packed(classes)

    def _source(self, name: str) -> str:
        """The node that joins the six grids' heads."""
        node = self._nodes[name]
        return self._source(node.inputs[0]) if node.op in ("Squeeze", "Identity") else node.name

    def _joined(self, node: Node) -> str:
        """A ConcatV2 of reshaped heads: each cell's boxes one after another, grid after grid."""
        parts = [self._head(self._nodes[name]) for name in node.inputs[:-1]]
        return self._add("Concat", parts, axis=1)

    def _head(self, reshape: Node) -> str:
        last = self._shape_of(reshape)[-1]
        rows = self._add("Transpose", [self._tensor(reshape.inputs[0])], perm=[0, 2, 3, 1])
        return self._add("Reshape", [rows, self._numbers([0, -1, last])])

    def _shape_of(self, reshape: Node) -> list[int]:
        """The constants that a Reshape's shape is packed of."""
        pack = self._nodes[reshape.inputs[1]]
        if pack.value is not None:
            return [int(number) for number in pack.value]
        values = (self._nodes[name].value for name in pack.inputs)
        return [int(value) if value is not None else -1 for value in values]

    def _decoded(self, encoded: str) -> None:
        known = anchors()
        centre, side = self._constant(known[None, :, :2]), self._constant(known[None, :, 2:])
        moved, grown = self._halves(encoded)
        off = self._add("Mul", [self._add("Div", [moved, self._constant(_CENTRE_SCALE)]), side])
        middle = self._add("Add", [off, centre])
        exponent = self._add("Exp", [self._add("Div", [grown, self._constant(_SIDE_SCALE)])])
        half = self._add("Mul", [self._add("Mul", [exponent, side]), self._constant(0.5)])
        near, far = self._add("Sub", [middle, half]), self._add("Add", [middle, half])
        self._add("Concat", [near, far], BOXES, axis=2)

    def _halves(self, encoded: str) -> tuple[str, str]:
        names = [f"{encoded}_centre", f"{encoded}_side"]
        self._made.append(helper.make_node("Split", [encoded, self._numbers([2, 2])], names, axis=2))
        return names[0], names[1]

    def _tensor(self, name: str) -> str:
        """What stands for TensorFlow's node; made with all before it, once."""
        if name not in self._done:
            self._done[name] = self._made_of(self._nodes[name])
        return self._done[name]

    def _made_of(self, node: Node) -> str:
        if node.name.startswith("Preprocessor/"):
            return INPUT
        match node.op:
            case "Identity":
                return self._tensor(node.inputs[0])
            case "Conv2D" | "DepthwiseConv2dNative":
                return self._convolved(node)
            case "FusedBatchNorm" | "FusedBatchNormV3":
                learned = [self._constant(self._value(name)) for name in node.inputs[1:5]]
                inputs = [self._tensor(node.inputs[0]), *learned]
                return self._add("BatchNormalization", inputs, epsilon=node.epsilon)
            case "BiasAdd":
                bias = self._constant(self._value(node.inputs[1]).reshape(1, -1, 1, 1))
                return self._add("Add", [self._tensor(node.inputs[0]), bias])
            case "Add" | "AddV2" | "Mul":
                return self._add(node.op[:3], [self._operand(name) for name in node.inputs])
            case "Relu6":
                return self._add("Clip", [self._tensor(node.inputs[0]), self._constant(0.0), self._constant(6.0)])
        raise ValueError(f"This is no SSD detector of MobileNets: {node.name} is {node.op}.")

    def _convolved(self, node: Node) -> str:
        """Of TensorFlow's weights [height, width, in, out], a depthwise one's [height, width, in, times]."""
        weights, group = self._value(node.inputs[1]), 1
        if node.op == "Conv2D":
            weights = weights.transpose(3, 2, 0, 1)
        else:
            height, width, group, times = weights.shape
            weights = weights.transpose(2, 3, 0, 1).reshape(group * times, 1, height, width)
        return self._add(
            "Conv",
            [self._tensor(node.inputs[0]), self._constant(weights)],
            kernel_shape=list(weights.shape[2:]),
            strides=list(node.strides[1:3]),
            auto_pad="SAME_UPPER" if node.padding == "SAME" else "VALID",
            group=group,
        )

    def _operand(self, name: str) -> str:
        """A tensor, or a number for each channel."""
        known = self._known(name)
        return self._tensor(name) if known is None else self._constant(known.reshape(1, -1, 1, 1))

    def _value(self, name: str) -> Floats:
        known = self._known(name)
        if known is None:
            raise ValueError(f"This is no frozen graph: {name} is no constant.")
        return known

    def _known(self, name: str) -> Floats | None:
        """What does not depend on the picture: constants, and what a batch norm in pieces makes of them."""
        node = self._nodes[name]
        if node.value is not None:
            return np.asarray(node.value, np.float32)
        if node.op not in _FOLDED:
            return None
        known = [self._known(each) for each in node.inputs]
        return None if any(each is None for each in known) else _FOLDED[node.op](*known)

    def _add(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        name = name or f"t{len(self._made)}"
        self._made.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, value: Floats | float) -> str:
        return self._weight(np.ascontiguousarray(value, np.float32))

    def _numbers(self, values: list[int]) -> str:
        return self._weight(np.array(values, np.int64))

    def _weight(self, value: npt.NDArray[Any]) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def _packed(self, classes: int) -> bytes:
        count = len(anchors())
        given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
        told = [
            helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, ["n", count, 4]),
            helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["n", count, classes]),
        ]
        graph = helper.make_graph(self._made, "ssd", [given], told, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        data: bytes = model.SerializeToString()
        return data
