"""From a torch network to an ONNX file, and the check that an artifact still says what the network says."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.manifest import Precision
from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.learning.train import threads
from model_compiler.replay import Ends, outputs_of

if TYPE_CHECKING:
    import torch

OPSET = 20
MIN_AGREEMENT = 0.95
MAX_IR_VERSION = 10
"""What ONNX Runtime 1.23.2 reads: the last with wheels for Python 3.10 on arm64."""


def export_onnx(net: torch.nn.Module, sample: Floats, path: Path, ends: Ends) -> None:
    """Writes `net` (eval mode, one input, one output) with a dynamic batch, slimmed, free of build paths.

    `sample`: (n >= 2, ...) float32, an input whose batch is not 1 (torch.export would make 1 a constant).
    """
    import onnx
    import onnxslim
    import torch

    with _quiet_exporter():
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
    model = onnxslim.slim(program.model_proto)
    strip(model)
    _check_readable(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def predict(net: torch.nn.Module, inputs: Floats) -> Floats:
    """The network's own outputs for `inputs`."""
    import torch

    with threads(1), torch.inference_mode():
        batches = [net(batch) for batch in torch.from_numpy(inputs).split(256)]
    return np.asarray(torch.cat(batches), np.float32)


def check_parity(artifact: Path, ends: Ends, inputs: Floats, expected: Floats, *, precision: Precision) -> None:
    """Raises CompileError when the artifact strays from `expected`, the network's outputs on real `inputs`.

    fp32 must be within 1e-3 (absolute and relative) everywhere; any must give the same top label in MIN_AGREEMENT.
    """
    got = outputs_of(artifact, inputs, ends)
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise CompileError(
            f"{artifact.name} gives {got.shape}, not finite {expected.shape}: the export lost the model."
        )
    if precision == "fp32" and not np.allclose(got, expected, atol=1e-3, rtol=1e-3):
        worst = float(np.abs(got - expected).max())
        raise CompileError(
            f"{artifact.name} differs from the torch network by {worst:.4g}: look for an op that changed."
        )
    same = float((got.argmax(1) == expected.argmax(1)).mean())
    if same < MIN_AGREEMENT:
        raise CompileError(
            f"{artifact.name} agrees with the torch network on {same:.1%} of {len(inputs)} real inputs; "
            f"{MIN_AGREEMENT:.0%} are needed. Give the quantizer more and truer pictures, or quantize fewer layers."
        )


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


def _check_readable(model: Any) -> None:
    if model.ir_version > MAX_IR_VERSION:
        raise CompileError(
            f"The exporter wrote ONNX IR {model.ir_version}; runtimes on nodes read up to {MAX_IR_VERSION}."
        )


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
