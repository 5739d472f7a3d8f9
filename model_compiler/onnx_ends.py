"""What goes into an ONNX file and comes out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from contracts.manifest import TensorSpec
from model_compiler.errors import CompileError
from model_compiler.replay import Ends

MAX_ONNX_BYTES = 2 << 30
"""Protocol buffers end there; larger models keep weights in files beside them, which a bundle does not carry."""


def load(path: Path) -> Any:
    """An onnx.ModelProto. Raises CompileError for what is not a whole ONNX file."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if path.stat().st_size > MAX_ONNX_BYTES:
            raise CompileError(f"{path} has {path.stat().st_size} bytes; an ONNX file has less than 2 GiB.")
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise CompileError(
                f"{path} keeps weights in other files. Save it as one: onnx.save_model(onnx.load(path), path)."
            )
        onnx.checker.check_model(model)
    except OSError as error:
        raise CompileError(f"{path} cannot be read ({error.strerror}). Give the path of an ONNX file.") from error
    except (DecodeError, onnx.checker.ValidationError, UnicodeDecodeError) as error:
        told = str(error).strip().partition("\n")[0][:300].rstrip(".") or type(error).__name__
        raise CompileError(f"{path} is no whole ONNX file: {told}. Export it again.") from error
    return model


def ends_of(path: Path) -> Ends:
    """Raises CompileError for a model that does not take rows of float32 or of pixels in one input and give as many in
    each output."""
    inputs, outputs = tensor_specs(load(path))
    if len(inputs) != 1:
        told = ", ".join(spec.name for spec in inputs) or "none"
        raise CompileError(f"{path} has {len(inputs)} inputs ({told}); models with one input are compiled.")
    if not outputs:
        raise CompileError(f"{path} has no output. Export the model with what it answers.")
    if inputs[0].datatype not in ("FP32", "UINT8"):
        raise CompileError(
            f"{path} takes {inputs[0].datatype}. Export it with a float32 input; the compiler makes it smaller itself."
        )
    batch = inputs[0].shape[0] if len(inputs[0].shape) > 1 else 0
    if batch not in (-1, 1):
        raise CompileError(
            f"{path}: the first dimension of {inputs[0].name} {list(inputs[0].shape)} must be the rows of a batch, "
            "free or 1. Export it with a free batch."
        )
    for spec in outputs:
        if spec.shape[:1] not in ((-1,), (batch,)):
            raise CompileError(
                f"{path}: the first dimension of output {spec.name} {list(spec.shape)} is not that of the batch. "
                "Export the model without what mixes its rows, such as non-maximum suppression."
            )
    return Ends(inputs[0].name, tuple(spec.name for spec in outputs), None if batch == -1 else batch)


def fitted(ends: Ends, path: Path) -> Ends:
    """`ends` with the batch that the file at `path` insists on."""
    return msgspec.structs.replace(ends, batch=ends_of(path).batch)


def tensor_specs(model: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of an onnx.ModelProto; -1 for every size that the file leaves open."""
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in given)
    return inputs, tuple(_spec(value) for value in model.graph.output)


def _spec(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise CompileError(
            f"{value.name!r} is a {value.type.WhichOneof('value')}. Models of tensors alone are compiled."
        )
    if not tensor.HasField("shape"):
        raise CompileError(f"Tensor {value.name!r} has no shape. Run onnx.shape_inference on the model first.")
    shape = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else -1 for size in tensor.shape.dim
    )
    return TensorSpec(value.name, _datatype(value.name, tensor.elem_type), shape)


def _datatype(name: str, kind: int) -> str:
    import onnx

    names = {
        onnx.TensorProto.FLOAT: "FP32",
        onnx.TensorProto.FLOAT16: "FP16",
        onnx.TensorProto.DOUBLE: "FP64",
        onnx.TensorProto.BOOL: "BOOL",
        **{getattr(onnx.TensorProto, kind): kind for kind in ("INT8", "INT16", "INT32", "INT64")},
        **{getattr(onnx.TensorProto, kind): kind for kind in ("UINT8", "UINT16", "UINT32", "UINT64")},
    }
    if kind not in names:
        known = {number: told for told, number in onnx.TensorProto.DataType.items()}
        raise CompileError(f"Tensor {name!r} is of a kind that is not compiled: {known.get(kind, kind)}.")
    return names[kind]
