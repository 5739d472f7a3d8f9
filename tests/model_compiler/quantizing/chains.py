"""Small ONNX models from lists of nodes, for the tests of what quantization is prepared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node named as what it writes."""
    return helper.make_node(kind, list(inputs), [output], name=output, **attributes)


def model(
    path: Path, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], shape: Sequence[int | str]
) -> Path:
    """Writes a model from "image" of `shape` to the last node's output, of whatever shape that is."""
    ends = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))
    outcome = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    graph = helper.make_graph(list(nodes), "main", [ends], [outcome], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(onnx.shape_inference.infer_shapes(made).SerializeToString())
    return path


def normal(*shape: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convolutions(
    path: Path, *, layers: int, answer_bias: Array, channels: int = 8, loud: Mapping[int, float] | None = None
) -> Path:
    """`layers` times convolution and ReLU c1, a1, c2, a2, ..., a pooling and a Gemm: (n, 3, 8, 8) to (n, 5) "logits".

    `answer_bias`: (5,) of the Gemm. `loud`: channel 0 behind those convolutions is so many times too large, which the
    next layer takes back.
    """
    rng, loud = np.random.default_rng(0), loud or {}
    constants: dict[str, Array] = {}
    nodes, before, width = [], "image", 3
    for layer in range(1, layers + 1):
        weight = rng.standard_normal((channels, width, 3, 3)) / np.sqrt(4.5 * width)
        weight[:, 0] /= loud.get(layer - 1, 1.0)
        bias = rng.standard_normal(channels) / 5
        weight[0], bias[0] = weight[0] * loud.get(layer, 1.0), bias[0] * loud.get(layer, 1.0)
        constants.update({f"w{layer}": weight.astype(np.float32), f"b{layer}": bias.astype(np.float32)})
        nodes.append(node("Conv", [before, f"w{layer}", f"b{layer}"], f"c{layer}", pads=[1, 1, 1, 1]))
        nodes.append(node("Relu", [f"c{layer}"], f"a{layer}"))
        before, width = f"a{layer}", channels
    weight = rng.standard_normal((channels, 5))
    weight[0] /= loud.get(layers, 1.0)
    constants.update({"w": weight.astype(np.float32), "b": answer_bias.astype(np.float32)})
    nodes += [
        node("GlobalAveragePool", [before], "p"),
        node("Flatten", ["p"], "f"),
        node("Gemm", ["f", "w", "b"], "logits"),
    ]
    return model(path, nodes, constants, ["n", 3, 8, 8])
