"""An int8 file that breaks its budget, written again with the fewest layers in float that the budget needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.progress import Advance, part_of, unwatched
from model_compiler.quantizing.diagnose import Diagnosis, Quantize, diagnose
from model_compiler.quantizing.fallback import Budget, Fallback, fall_back
from model_compiler.quantizing.graph import Array, Graph
from model_compiler.quantizing.levels import to_int32
from model_compiler.quantizing.placement import Keep
from model_compiler.quantizing.prepare import save
from model_compiler.quantizing.ranges import Table
from model_compiler.quantizing.search import Calibrated, Form, Request, Written, corrected
from model_compiler.quantizing.tensorrt_lint import check_tensorrt

if TYPE_CHECKING:
    import onnx

_NOTHING: Mapping[str, Keep] = {}


class Mixed(msgspec.Struct, frozen=True):
    """`score`: the metric of the file in the end, with biases corrected again where that helped."""

    file: str
    score: float
    diagnosis: Diagnosis
    fallback: Fallback


def mix(
    kept: Path,
    out: Path,
    form: Form,
    written: Written,
    request: Request,
    budget: Budget,
    *,
    advance: Advance = unwatched,
) -> Mixed:
    """Writes `form` into `out`. `kept`: where `search` left its files, `written`: what it said of this one."""
    best, path = Calibrated.load(kept), out / form.file
    quantize = _with_biases_of(kept / form.file, form) if written.corrected else form.quantize
    judged = (request.validation, request.ends, request.metric)
    found, told = (kept / form.file, best.observations, best.table), part_of(advance, 0.0, 0.4)
    diagnosis = diagnose(best.base, *found, *judged, quantize=quantize, literal=form.literal, advance=told)
    given, told = (best.base, path, best.table, *judged, budget), part_of(advance, 0.4, 0.9)
    fallback = fall_back(diagnosis, *given, quantize=quantize, literal=form.literal, advance=told)
    score = fallback.score
    if written.corrected and fallback.keep:
        score = corrected(form, best, path, request, score, part_of(advance, 0.9, 1.0)).score
    if form.literal:
        check_tensorrt(path)
    advance(1.0)
    return Mixed(form.file, score, diagnosis, fallback)


def _with_biases_of(file: Path, form: Form) -> Quantize:
    """The form's way of quantizing, then the biases of the int8 `file` in every layer that is int8 here too.

    Correcting them anew for every mix that is tried would take far longer than all the rest.
    """
    source = Graph.read(file)

    def quantize(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = _NOTHING) -> None:
        form.quantize(fp32, out, table, keep=keep)
        graph = Graph.read(out)
        for node in graph.nodes.values():
            twin = source.nodes.get(node.name)
            if twin is not None and _is_int8(source, twin) and _is_int8(graph, node):
                _carry_bias(source, twin, graph, node)
        save(graph.model, out)

    return quantize


def _is_int8(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether it is a layer whose weights are integers."""
    weights = graph.producer(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
    return weights is not None and weights.op_type == "DequantizeLinear"


def _carry_bias(source: Graph, twin: onnx.NodeProto, graph: Graph, node: onnx.NodeProto) -> None:
    bias = _bias(source, twin)
    if bias is None or _bias(graph, node) is None:
        return
    holder = graph.producer(node.input[2])
    if holder is None:
        graph.set_constant(node.input[2], bias)
        return
    scale = graph.constant(holder.input[1])
    assert scale is not None  # `_bias` read it
    graph.set_constant(holder.input[0], to_int32(bias, scale))


def _bias(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """(channels,) in float; None where there is none, or it is no constant."""
    if len(node.input) < 3 or not node.input[2]:
        return None
    holder = graph.producer(node.input[2])
    if holder is None:
        return graph.constant(node.input[2])
    steps, scale = (graph.constant(name) for name in holder.input[:2])
    return None if steps is None or scale is None else steps * scale.astype(np.float64)
