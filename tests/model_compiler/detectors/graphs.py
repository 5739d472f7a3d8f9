"""ONNX files of detectors that find the same things in every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


def constant_detector(
    path: Path,
    outputs: Mapping[str, Array],
    *,
    name: str = "image",
    shape: Sequence[int | str] = (1, 3, 128, 128),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """`outputs` [1, ...], whatever the picture."""
    nodes, tensors = [], [numpy_helper.from_array(np.array(0.0, np.float32), "nothing")]
    nodes.append(helper.make_node("Cast", [name], ["floats"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "nothing"], ["zero"]))
    for number, (output, array) in enumerate(outputs.items()):
        tensors.append(numpy_helper.from_array(array.astype(np.float32), f"value-{number}"))
        nodes.append(helper.make_node("Add", [f"value-{number}", "zero"], [output]))
    taken = helper.make_tensor_value_info(name, kind, list(shape))
    given = [helper.make_tensor_value_info(output, TensorProto.FLOAT, array.shape) for output, array in outputs.items()]
    graph = helper.make_graph(nodes, "main", [taken], given, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    return path
