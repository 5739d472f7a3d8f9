"""Post-training int8 quantization for ONNX Runtime on CPUs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.export import strip

_BATCH = 64


def quantize_cpu(fp32: Path, out: Path, ranges: Floats, *, input_name: str) -> None:
    """Writes `out`: QDQ, activations uint8, weights int8 per channel, ranges by min-max over `ranges` (n, ...).

    Weights use 7 of their 8 bits (`reduce_range`): x86 without VNNI adds pairs of products in 16 bits and saturates
    with 8, so the same file would answer differently on another CPU. The last Gemm or MatMul writes float: rounded
    logits would make confidences collide.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with TemporaryDirectory() as work:
        prepared, quantized = Path(work) / "prepared.onnx", Path(work) / "quantized.onnx"
        # ONNX's own shape inference follows a dynamic batch through convolutions; the symbolic one is for transformers.
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantized),
            _Batches(ranges, input_name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        model = onnx.load(str(quantized))
    _check_quantized(model)
    strip(model)
    out.write_bytes(model.SerializeToString(deterministic=True))


class _Batches:
    """A calibration data reader, as ONNX Runtime knows one by its `get_next`."""

    def __init__(self, ranges: Floats, input_name: str) -> None:
        self._left = [{input_name: ranges[start : start + _BATCH]} for start in range(0, len(ranges), _BATCH)][::-1]

    def get_next(self) -> dict[str, Floats] | None:
        return self._left.pop() if self._left else None


def _check_quantized(model: Any) -> None:
    """A quantizer that changed nothing is an error, not a big file with a small name."""
    kinds = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" not in kinds:
        raise CompileError(f"Quantization changed nothing: none of {', '.join(sorted(kinds))} was quantized.")
