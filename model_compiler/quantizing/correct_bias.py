"""Bias correction: what rounding adds to a layer's output on average is taken off its bias."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Rows, Samples, batches
from model_compiler.errors import CompileError
from model_compiler.progress import Advance, unwatched
from model_compiler.quantizing.graph import Array, Graph
from model_compiler.quantizing.levels import to_int32
from model_compiler.quantizing.prepare import load_prepared, save
from model_compiler.replay import Ends, open_engine

if TYPE_CHECKING:
    import onnx

_ROWS = 128
"""Means over so many samples, and over all pixels, hardly move with more."""

_BATCH = 16

Means = npt.NDArray[np.float64]


def correct_bias(
    fp32: Path,
    quantized: Path,
    out: Path,
    samples: Samples,
    ends: Ends,
    *,
    literal: bool = False,
    advance: Advance = unwatched,
) -> int:
    """Writes to `out` the `quantized` file with the bias of each layer moved; how many layers were.

    Empirical bias correction (Nagel, van Baalen, Blankevoort, Welling 2019, section 4.2 and appendix D): the mean error
    of each channel against the prepared `fp32`, over `samples` (of the calibration; the first _ROWS), is subtracted
    from its bias; layer by layer in the order of the graph, so that each is measured behind those corrected before.

    Biases keep their form: int32 in the steps they had, or float in files for TensorRT. A convolution without a bias
    is given one. `literal`: the file is run as it is written, as TensorRT's are. Raises CompileError when the file
    holds no layer of `fp32` in int8.
    """
    exact, graph = Graph(load_prepared(fp32)), Graph.read(quantized)
    layers = _layers(exact, graph)
    if not layers:
        raise CompileError(f"{quantized.name} computes no layer of {fp32.name} in int8: there is no bias to correct.")
    few = Rows(samples, np.arange(min(_ROWS, len(samples))))
    with TemporaryDirectory() as work:
        part = Path(work) / "part.onnx"
        originals = [exact.nodes[layer.name].output[0] for layer in layers]
        wanted = _means(exact, originals, few, ends, part, literal=False)
        for done, (layer, mean) in enumerate(zip(layers, wanted, strict=True)):
            [got] = _means(graph, [layer.output[0]], few, ends, part, literal=literal)
            _add(graph, layer, mean - got)
            advance((done + 1) / len(layers))
    save(graph.model, out)
    return len(layers)


def _layers(exact: Graph, graph: Graph) -> list[onnx.NodeProto]:
    """Convolutions and Gemms with integer weights, with a bias of their own or room for one; in graph order."""
    return [
        node
        for node in graph.model.graph.node
        if node.name in exact.nodes
        and node.op_type in ("Conv", "Gemm")
        and _scale(graph, node.input[1]) is not None
        and _is_own(graph, node)
    ]


def _scale(graph: Graph, tensor: str) -> Array | None:
    """The scale of what DequantizeLinear writes; None for other tensors."""
    node = graph.producer(tensor)
    return graph.constant(node.input[1]) if node is not None and node.op_type == "DequantizeLinear" else None


def _is_own(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether the bias is the node's alone, or missing."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    holder = graph.producer(node.input[2])
    stored = node.input[2] if holder is None else holder.input[0]
    takers = [graph.consumers(name) for name in {node.input[2], stored}]
    return graph.constant(stored) is not None and all(len(each) == 1 for each in takers)


def _means(
    graph: Graph, tensors: Sequence[str], samples: Samples, ends: Ends, part: Path, *, literal: bool
) -> list[Means]:
    """Per tensor the mean of each channel (axis 1) over samples and pixels. Only what leads to them is run."""
    graph.write_part(part, tensors)
    sums: list[Means] = [np.zeros(1)] * len(tensors)
    rows = len(samples) // ends.batch * ends.batch if ends.batch else len(samples)
    with closing(open_engine(part, literal=literal)) as engine:
        for batch in batches(Rows(samples, np.arange(rows)), ends.batch or _BATCH):
            outputs = engine.run({ends.input: batch})
            for index, name in enumerate(tensors):
                by_row = outputs[name].astype(np.float64).reshape(*outputs[name].shape[:2], -1).mean(axis=2)
                sums[index] = sums[index] + by_row.sum(axis=0)
    return [each / rows for each in sums]


def _add(graph: Graph, node: onnx.NodeProto, more: Means) -> None:
    """Adds `more` (channels,) to the node's bias."""
    if len(node.input) < 3 or not node.input[2]:
        _give(graph, node, more)
        return
    holder = graph.producer(node.input[2])
    if holder is None:
        bias = graph.constant(node.input[2])
        assert bias is not None
        graph.set_constant(node.input[2], bias + more)
        return
    steps, scale = graph.constant(holder.input[0]), graph.constant(holder.input[1])
    assert steps is not None
    assert scale is not None
    graph.set_constant(holder.input[0], to_int32(steps * scale.astype(np.float64) + more, scale))


def _give(graph: Graph, node: onnx.NodeProto, bias: Means) -> None:
    """A bias for a node without one: int32 in steps of input times weight where its input is uint8, else float."""
    import onnx

    name = f"{node.name}_bias"
    del node.input[2:]
    reader = graph.producer(node.input[0])
    zero_point = graph.constant(reader.input[2]) if reader is not None and len(reader.input) > 2 else None
    if zero_point is None or zero_point.dtype != np.uint8:
        graph.add_constant(name, bias.astype(np.float32))
        node.input.append(name)
        return
    one, other = _scale(graph, node.input[0]), _scale(graph, node.input[1])
    assert one is not None
    assert other is not None
    scale = np.broadcast_to(one * other, bias.shape).astype(np.float32)
    ends = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
    for constant, values in zip(ends, (to_int32(bias, scale), scale, np.zeros(len(bias), np.int32)), strict=True):
        graph.add_constant(constant, values)
    dequantize = onnx.helper.make_node("DequantizeLinear", ends, [f"{name}_DequantizeLinear_Output"], name, axis=0)
    node.input.append(dequantize.output[0])
    graph.insert_before(node, dequantize)
