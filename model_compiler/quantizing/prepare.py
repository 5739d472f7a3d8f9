"""A float model as every quantizer and the diagnosis see it: folded, shapes inferred, every node with its own name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model_compiler.errors import CompileError
from model_compiler.export import MAX_IR_VERSION, strip
from model_compiler.onnx_ends import load
from model_compiler.quantizing.rewrites import rewrite

MIN_OPSET, MAX_OPSET = 13, 23
"""The first in which QuantizeLinear takes one scale a channel; the last that ONNX Runtime 1.23.2 reads."""

_MARK = "foothill.prepared"


def prepare(model: Path, out: Path) -> None:
    """Writes `out`: constants folded, batch norms fused, shapes inferred, opset at least 13, nodes named.

    Preparing a prepared model changes nothing. Raises CompileError for a file that ONNX Runtime cannot read.
    """
    out.write_bytes(load_prepared(model).SerializeToString(deterministic=True))


def load_prepared(path: Path) -> Any:
    """The onnx.ModelProto of a float model, prepared; a file that `prepare` wrote is taken as it is."""
    import onnx

    model = load(path)
    if any(entry.key == _MARK for entry in model.metadata_props):
        return model
    with TemporaryDirectory() as work:
        model = _optimized(_upgraded(model, path), path, Path(work))
    strip(model)
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    name_nodes(model.graph)
    rewrite(model)
    model = onnx.shape_inference.infer_shapes(model)
    model.metadata_props.add(key=_MARK, value="1")
    return model


def save(model: Any, out: Path) -> None:
    """Writes a finished artifact: the same bytes for the same model, no marks, no constants that nothing reads."""
    strip(model)
    used = {value.name for value in model.graph.output}.union(*(names_read(node) for node in model.graph.node))
    for each in [each for each in model.graph.initializer if each.name not in used]:
        model.graph.initializer.remove(each)
    out.write_bytes(model.SerializeToString(deterministic=True))


def names_read(node: Any) -> set[str]:
    """The tensors that a node reads, those of the graphs inside it included."""
    inner = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    names = {name for name in node.input if name}
    for graph in inner:
        names |= {value.name for value in graph.output}.union(*(names_read(each) for each in graph.node))
    return names


def name_nodes(graph: Any) -> None:
    """Gives every node a name of its own: its own name where nobody else has it, else its operator and place."""
    count = Counter(node.name for node in graph.node)
    taken = {name for name, uses in count.items() if uses == 1}
    for index, node in enumerate(graph.node):
        if not node.name or count[node.name] > 1:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)


def _upgraded(model: Any, path: Path) -> Any:
    from onnx import version_converter

    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset > MAX_OPSET:
        raise CompileError(
            f"{path.name} uses opset {opset}; runtimes on nodes read up to {MAX_OPSET}. Export the model with opset 20."
        )
    if opset >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except Exception as error:
        raise CompileError(
            f"{path.name} uses opset {opset}, and ONNX cannot lift it to {MIN_OPSET} ({_line(error)}). "
            f"Export the model again with opset {MIN_OPSET} or later."
        ) from error


def _optimized(model: Any, path: Path, work: Path) -> Any:
    """Constants folded and batch norms fused by ONNX Runtime, whose other rewrites are for its own kernels."""
    import onnx
    import onnxruntime

    initializers = {each.name for each in model.graph.initializer}
    for value in [each for each in model.graph.input if each.name in initializers]:
        model.graph.input.remove(value)  # IR 3 lists weights as inputs, and what may be fed is not folded
    name_nodes(model.graph)  # two of one name are refused
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(work / "optimized.onnx")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base below this one
        raise CompileError(
            f"{path.name} cannot be prepared for quantization: {_line(error)}. Check the file with onnx.checker."
        ) from error
    return onnx.load(options.optimized_model_filepath)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300].rstrip(".")
