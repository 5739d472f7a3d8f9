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
