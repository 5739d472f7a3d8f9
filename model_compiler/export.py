"""From a torch network or a foreign ONNX file to an ONNX file that nodes read, and the check that nothing was lost."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError
from model_compiler.learning.judge import outputs_by_name
from model_compiler.onnx_ends import ends_of, fitted, load, tensor_specs
from model_compiler.replay import Ends, all_outputs_of

if TYPE_CHECKING:
    import torch

OPSET = 20
MAX_OPSET = 22
MAX_IR_VERSION = 10
"""What ONNX Runtime 1.23.2 reads: the last with wheels for Python 3.10 on arm64."""


class Parity(msgspec.Struct, frozen=True):
    """An artifact beside the model it came from, on `rows` real inputs: the largest difference of any output, and for
    classifiers the share of rows with the same top label."""

    artifact: str
    rows: int
    largest_difference: float
    agreement: float | None = None


def export_onnx(net: torch.nn.Module, sample: Floats, path: Path, ends: Ends) -> None:
    """Writes `net` (eval mode, one input) with a dynamic batch, slimmed, free of build paths.

    `sample`: (n >= 2, ...) float32, an input whose batch is not 1 (torch.export would make 1 a constant). Raises
    CompileError for a network that torch cannot export, or whose file says something else than the network.
    """
    import torch

    with _quiet_exporter():
        try:
            program = torch.onnx.export(
                net,
                (torch.from_numpy(sample),),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[ends.input],
                output_names=list(ends.outputs),
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            raise CompileError(
                f"torch cannot export this network: {_first_line(error)}. Keep Python control flow that depends on "
                "values, and sizes computed from the batch, out of its forward()."
            ) from error
    _write(program.model_proto, path)
    check_same(path.name, all_outputs_of(path, sample, ends), net_outputs(net, sample, ends))


def import_onnx(given: Path, path: Path, ends: Ends, sample: Floats) -> None:
    """Writes the foreign model `given` as our exports are: checked, slimmed, free of build paths, its tensors named and
    ordered as in `ends`: by their own names where it has all of these, else by their places.

    `sample`: (n >= 1, ...) float32. Raises CompileError where nodes could not read it, where it does not take the
    sample, or slimming changed it.
    """
    there, model = _ordered(ends_of(given), ends), load(given)
    model.graph.output.sort(key=lambda output: there.outputs.index(output.name))
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if opset > MAX_OPSET:
        raise CompileError(f"{given} uses opset {opset}; nodes read up to {MAX_OPSET}. Export it again with {OPSET}.")
    _check_takes(given, model, sample)
    initial = {tensor.name for tensor in model.graph.initializer}
    for value in [each for each in model.graph.input if each.name in initial]:
        model.graph.input.remove(value)  # IR 3 lists weights as inputs too
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    rows = sample[: there.batch]
    wanted = all_outputs_of(given, rows, there)
    _write(_renamed(model, there, ends), path)
    got = all_outputs_of(path, rows, fitted(ends, path))
    check_same(path.name, got, dict(zip(got, wanted.values(), strict=False)))


def rename_ends(given: Path, path: Path, there: Ends, ends: Ends) -> None:
    """Writes the model `given` with its tensors `there` named as in `ends`, else as it is.

    Raises CompileError where it has fewer outputs.
    """
    path.write_bytes(_renamed(load(given), there, ends).SerializeToString(deterministic=True))


def parity(artifact: str, got: Mapping[str, Floats], wanted: Mapping[str, Floats], *, classifies: str = "") -> Parity:
    """How far the artifact's outputs are from those of its model; `classifies` names the output of class scores.

    Raises CompileError when one has another shape or is not finite.
    """
    for name, expected in wanted.items():
        if got[name].shape != expected.shape or not np.isfinite(got[name]).all():
            raise CompileError(
                f"{artifact} gives {name} as {got[name].shape}, not as finite {expected.shape}: the model was lost."
            )
    largest = max(float(np.abs(got[name] - expected).max()) for name, expected in wanted.items())
    rows = len(next(iter(wanted.values())))
    agreement = None
    if classifies:
        agreement = float((got[classifies].argmax(1) == wanted[classifies].argmax(1)).mean())
    return Parity(artifact, rows, largest, agreement)


def net_outputs(net: torch.nn.Module, inputs: Floats, ends: Ends) -> dict[str, Floats]:
    """The network's own outputs for `inputs` (n, ...): (n, ...) float32 each."""
    return outputs_by_name(net, Arrays(inputs, np.zeros(len(inputs), np.int64)), ends.outputs)


def check_same(artifact: str, got: Mapping[str, Floats], wanted: Mapping[str, Floats]) -> None:
    """Raises CompileError unless an fp32 file's outputs are the model's, to 1e-3 absolute and relative."""
    worst = parity(artifact, got, wanted).largest_difference
    if not all(np.allclose(got[name], expected, atol=1e-3, rtol=1e-3) for name, expected in wanted.items()):
        raise CompileError(f"{artifact} differs from its model by {worst:.4g}: look for an operator that changed.")


def strip(model: Any) -> None:
    """Takes out of an onnx.ModelProto what depends on where it was built, and operator sets that no node uses."""
    model.producer_name, model.producer_version, model.doc_string = "foothill", "", ""
    del model.metadata_props[:]
    graph = model.graph
    used = {node.domain for node in graph.node} | {""}
    for operators in [each for each in model.opset_import if each.domain not in used]:
        model.opset_import.remove(operators)
    graph.name, graph.doc_string = "main", ""
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]


def _ordered(there: Ends, ends: Ends) -> Ends:
    """`there` with its outputs in the order of `ends`, where it has all of those."""
    if not set(ends.outputs) <= set(there.outputs):
        return there
    more = tuple(name for name in there.outputs if name not in ends.outputs)
    return msgspec.structs.replace(there, outputs=(*ends.outputs, *more))


def _renamed(model: Any, there: Ends, ends: Ends) -> Any:
    """An onnx.ModelProto whose input and outputs `there` have the names of `ends`; all else gets a name of its own."""
    import onnx

    names = {there.input: ends.input, **dict(zip(there.outputs, ends.outputs, strict=False))}
    if len(there.outputs) < len(ends.outputs):
        told = ", ".join(ends.outputs)
        raise CompileError(f"A model with the outputs {', '.join(there.outputs)} cannot stand for one with {told}.")
    if all(before == after for before, after in names.items()):
        return model
    model = onnx.compose.add_prefix(model, "given/")
    graph = model.graph
    named = [each for each in graph.output if each.name.removeprefix("given/") in names]
    for value, first in ((graph.input[0], True), *((each, False) for each in named)):
        inner, outer = value.name, names[value.name.removeprefix("given/")]
        edge = onnx.helper.make_node("Identity", *(([outer], [inner]) if first else ([inner], [outer])))
        graph.node.insert(0 if first else len(graph.node), edge)
        value.name = outer
    return model


def _check_takes(given: Path, model: Any, sample: Floats) -> None:
    (taken,), _ = tensor_specs(model)
    shape = sample.shape[1:]
    if len(taken.shape) != sample.ndim or not all(
        size in (-1, has) for size, has in zip(taken.shape[1:], shape, strict=True)
    ):
        raise CompileError(
            f"{given} takes {taken.name} {list(taken.shape)} (-1: any), and the samples are {list(shape)} each. Give "
            "samples, or a [preprocess] table, that fit the model."
        )
    if (taken.datatype == "UINT8") != (sample.dtype == np.uint8):
        raise CompileError(
            f"{given} takes {taken.datatype}, and the samples are {sample.dtype}. Export it with a float32 input; the "
            "compiler makes it smaller itself."
        )


def _write(model: Any, path: Path) -> None:
    import onnx
    import onnxslim

    slimmed = onnxslim.slim(model)
    strip(slimmed)
    if slimmed.ir_version > MAX_IR_VERSION:
        raise CompileError(
            f"The exporter wrote ONNX IR {slimmed.ir_version}; runtimes on nodes read up to {MAX_IR_VERSION}."
        )
    onnx.checker.check_model(slimmed)
    path.write_bytes(slimmed.SerializeToString(deterministic=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter deprecates its own calls and warns of a torchvision it does not need; nobody here can act on it."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        registration.setLevel(before)
