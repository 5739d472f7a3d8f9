"""Post-training int8 quantization: two files from one calibration table, for CPUs and for TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model_compiler.errors import CompileError
from model_compiler.quantizing.prepare import load_prepared, save
from model_compiler.quantizing.ranges import Table

Keep = Literal["fp16", "fp32"]
"""What a layer that is not quantized is stored in."""

_NOTHING: Mapping[str, Keep] = {}
_TENSORRT_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize_cpu(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = _NOTHING) -> None:
    """Writes `out`: QDQ, activations uint8, weights int8 per channel.

    Weights use 7 of their 8 bits (`reduce_range`): x86 without VNNI adds pairs of products in 16 bits and saturates
    with 8, so the same file would answer differently on another CPU. The last Gemm or MatMul writes float: rounded
    logits would make confidences collide.
    """
    from onnxruntime.quantization import QuantType

    _quantize(
        fp32,
        out,
        table,
        keep,
        activations=QuantType.QUInt8,
        reduce_range=True,
        options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )


def quantize_tensorrt(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = _NOTHING) -> None:
    """Writes `out`: QDQ around what TensorRT computes in int8, all symmetric int8, biases in float."""
    from onnxruntime.quantization import QuantType

    _quantize(
        fp32,
        out,
        table,
        keep,
        activations=QuantType.QInt8,
        reduce_range=False,
        options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(_TENSORRT_OPS),
        },
        operators=_TENSORRT_OPS,
    )


def _quantize(
    fp32: Path,
    out: Path,
    table: Table,
    keep: Mapping[str, Keep],
    *,
    activations: Any,
    reduce_range: bool,
    options: dict[str, Any],
    operators: tuple[str, ...] = (),
) -> None:
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    model = load_prepared(fp32)
    ranges = {
        name: TensorData(lowest=np.float32(each.low), highest=np.float32(each.high))
        for name, each in table.ranges.items()
    }
    quantizer = QDQQuantizer(
        model,
        True,
        reduce_range,
        QuantType.QInt8,
        activations,
        ranges,
        [],
        sorted(keep),
        list(operators) or sorted({*QLinearOpsRegistry, *QDQRegistry}),
        options,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    model = quantizer.model.model
    _check_quantized(model)
    save(model, out)


def _check_quantized(model: Any) -> None:
    """A quantizer that changed nothing is an error, not a big file with a small name."""
    kinds = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" not in kinds:
        raise CompileError(f"Quantization changed nothing: none of {', '.join(sorted(kinds))} was quantized.")
