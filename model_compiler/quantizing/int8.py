"""Post-training int8 quantization: two files from one calibration table, for CPUs and for TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_compiler.errors import CompileError
from model_compiler.quantizing.gates import integer_gates
from model_compiler.quantizing.graph import Graph
from model_compiler.quantizing.half import lower
from model_compiler.quantizing.placement import Keep as Keep
from model_compiler.quantizing.placement import Placement, place_cpu, place_tensorrt
from model_compiler.quantizing.prepare import load_prepared, save
from model_compiler.quantizing.qdq import CPU, TENSORRT, write
from model_compiler.quantizing.ranges import Table

_NOTHING: Mapping[str, Keep] = {}


def quantize_cpu(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = _NOTHING) -> None:
    """Writes `out`: QDQ, activations uint8, weights int8 per channel, biases int32.

    No two neighbouring weights add up to more than 8 bits hold (depthwise convolutions use all 8 of each): x86 without
    VNNI adds pairs of products in 16 bits and saturates, so the same file would answer differently on another CPU.
    Gemm and MatMul write float where no layer follows: rounded logits would make confidences collide.

    A node named in `keep` reads float, computes in float, and stores its weights as float32 or float16 (ONNX Runtime
    casts them back once, at load). ONNX Runtime cannot convolve in int8 and write float: what writes the input of a
    kept node is kept with it, see `place_cpu`. Raises CompileError for a name that the prepared model does not have,
    and where nothing was quantized.
    """
    model = load_prepared(fp32)
    table = integer_gates(model, table, keep)
    graph = Graph(model)
    placement = place_cpu(graph, table.ranges, keep)
    _check_quantized(graph, placement)
    save(write(graph, placement, table, CPU), out)


def quantize_tensorrt(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = _NOTHING) -> None:
    """Writes `out`: QDQ in front of what TensorRT computes in int8, all symmetric int8, biases in float.

    A node named in `keep` reads float; with fp16 it computes in half precision between two casts, as a strongly typed
    network wants it. Raises CompileError as `quantize_cpu` does.
    """
    graph = Graph(load_prepared(fp32))
    placement = place_tensorrt(graph, table.ranges, keep)
    _check_quantized(graph, placement)
    model = write(graph, placement, table, TENSORRT)
    lower(model, {name for name, precision in placement.kept.items() if precision == "fp16"})
    save(model, out)


def _check_quantized(graph: Graph, placement: Placement) -> None:
    """A quantizer that changed nothing is an error, not a big file with a small name."""
    if placement.int8:
        return
    if placement.kept:
        raise CompileError("Quantization changed nothing: every layer is kept, or writes what a kept one reads.")
    kinds = sorted({node.op_type for node in graph.nodes.values()})
    raise CompileError(
        f"Quantization changed nothing: none of {', '.join(kinds)} was quantized. Convolutions, Gemm and MatMul with "
        "constant weights are; the calibration table must hold the ranges of what they read."
    )
