"""Half precision: float16 weights and arithmetic between float32 inputs and outputs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.graph import Array
from model_compiler.quantizing.observe import Observations
from model_compiler.quantizing.prepare import load_prepared, names_read, save

if TYPE_CHECKING:
    import onnx

_LARGEST = 65504.0
_ROOM = 0.25
"""Other pictures reach further than those of the calibration."""

_DELICATE = frozenset(
    {
        *("Exp", "Pow", "CumSum", "Range", "TopK", "NonMaxSuppression", "RoiAlign", "Softplus"),
        *("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"),
        *("Div", "Sqrt", "Reciprocal", "Log"),
    }
)
"""Sums and powers leave the range of float16 first, counts above 2048 are not exact in it, and a small divisor is 0."""

_STILL_FLOAT = {"Resize": (1, 2), "Upsample": (1,), "QuantizeLinear": (1,), "DequantizeLinear": (1,)}
"""Inputs that an operator takes as float32 whatever its data is."""

_TYPED = frozenset({"Cast", "CastLike", "ConstantOfShape", "Constant", "QuantizeLinear", "DequantizeLinear"})
"""Operators that name the type they write; left as they are, a Cast follows them where it must."""


def to_fp16(fp32: Path, out: Path, *, seen: Observations | None = None) -> None:
    """Writes `out`: float16 inside, float32 inputs and outputs, casts where the two meet.

    Operators that leave the range of float16 easily stay float32, and with `seen` also what reads or writes values
    beyond a quarter of it: give it, since ONNX Runtime on a CPU computes in float32 and would not show an overflow.
    Raises CompileError that names a weight beyond that range, and where nothing was changed.
    """
    model = load_prepared(fp32)
    large = {name for name, each in (seen.tensors if seen else {}).items() if each.largest > _LARGEST * _ROOM}
    lost = large | _unheld(model)
    nodes = {
        node.name
        for node in model.graph.node
        if node.op_type not in _DELICATE and not lost.intersection((*node.input, *node.output))
    }
    if not lower(model, nodes):
        kinds = sorted({node.op_type for node in model.graph.node})
        raise CompileError(f"Nothing was changed to float16: none of {', '.join(kinds)} computes in it.")
    save(model, out)


def store_fp16(fp32: Path, out: Path) -> None:
    """Writes `out`: weights stored as float16 and computed in float32, for CPUs, which gain nothing from halves.

    Half the bytes at the speed of float32: ONNX Runtime casts each weight back once, at load. (What it makes of
    float16 arithmetic on a CPU is casts around every operator, and for some transformers, in 1.31, a crash at load.)
    Raises CompileError as `to_fp16` does.
    """
    import onnx

    model = load_prepared(fp32)
    casts = []
    for each in model.graph.initializer:
        if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) >= 2:
            name, values = each.name, onnx.numpy_helper.to_array(each)
            each.CopyFrom(onnx.numpy_helper.from_array(to_half(name, values), f"{name}_half"))
            make, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
            casts.append(make("Cast", [f"{name}_half"], [name], f"{name}_half_Cast", to=kind))
    if not casts:
        raise CompileError("Nothing was stored as float16: the model has no weight of two axes or more.")
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    save(model, out)


def _unheld(model: onnx.ModelProto) -> set[str]:
    """Single constants that float16 makes zero, as what keeps a divisor from being zero, or infinite, as a limit."""
    import onnx

    names = set()
    for each in model.graph.initializer:
        values = onnx.numpy_helper.to_array(each)
        if values.dtype == np.float32 and values.size == 1 and values.any():
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            if not half.any() or not np.isfinite(half).all():
                names.add(each.name)
    return names


def lower(model: onnx.ModelProto, nodes: Collection[str]) -> int:
    """Makes the named nodes compute in float16, in place, where their operators can; how many do.

    A tensor `t` in half precision is called `t_half`. Raises CompileError as `to_half` does.
    """
    lowering = _Lowering(model, nodes)
    written = [each for value in model.graph.input for each in lowering.casts(value.name)]
    for node in model.graph.node:
        written += lowering.node(node)
    lowering.finish(written)
    return len(lowering.halves)


def to_half(name: str, values: Floats) -> Array:
    """float16. Raises CompileError where a value is beyond 65504."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise CompileError(
            f"Weight {name!r} reaches {np.abs(values).max():.4g}, and float16 ends at {_LARGEST:.0f}. Keep its layer "
            "in fp32, or scale the weight down in the model."
        )
    return half


class _Lowering:
    """Which tensors exist in which precision: those that half nodes write, as `t_half`, and casts where asked for."""

    def __init__(self, model: onnx.ModelProto, nodes: Collection[str]) -> None:
        self._model = model
        self._constants = {each.name: each for each in model.graph.initializer}
        self._floats = _float_tensors(model)
        opset = next(each.version for each in model.opset_import if each.domain == "")
        self.halves = {
            node.name
            for node in model.graph.node
            if node.name in nodes and _computes_half(node, opset) and self._floats.intersection(node.output)
        }
        self._made: set[str] = set()
        self._read_half: set[str] = set()
        self._read_float = {value.name for value in model.graph.output}
        for node in model.graph.node:
            names = names_read(node)
            if node.name in self.halves:
                halved = {name for index, name in enumerate(node.input) if self._halved(node, index)}
                self._made |= self._floats.intersection(node.output)
                self._read_half |= halved
                names = {name for index, name in enumerate(node.input) if not self._halved(node, index)}
            self._read_float |= names

    def node(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node, and the casts of what it writes."""
        outputs = list(node.output)
        if node.name in self.halves:
            for index, name in enumerate(node.input):
                if self._halved(node, index):
                    node.input[index] = f"{name}_half"
            for index, name in enumerate(node.output):
                if name in self._floats:
                    node.output[index] = f"{name}_half"
        return [node, *(cast for name in outputs for cast in self.casts(name))]

    def casts(self, tensor: str) -> list[onnx.NodeProto]:
        """From the precision in which `tensor` is written to the one in which it is read too."""
        import onnx

        make, half = onnx.helper.make_node, f"{tensor}_half"
        if tensor in self._made:
            wanted = tensor in self._read_float
            return [make("Cast", [half], [tensor], f"{tensor}_to_float", to=onnx.TensorProto.FLOAT)] if wanted else []
        wanted = tensor in self._read_half and tensor not in self._constants
        return [make("Cast", [tensor], [half], f"{half}_Cast", to=onnx.TensorProto.FLOAT16)] if wanted else []

    def finish(self, nodes: list[onnx.NodeProto]) -> None:
        """Puts the nodes and the halved constants into the model."""
        import onnx

        graph = self._model.graph
        for name in sorted(self._read_half.intersection(self._constants)):
            values = onnx.numpy_helper.to_array(self._constants[name])
            graph.initializer.append(onnx.numpy_helper.from_array(to_half(name, values), f"{name}_half"))
        kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(kept)

    def _halved(self, node: onnx.NodeProto, index: int) -> bool:
        return node.input[index] in self._floats and index not in _STILL_FLOAT.get(node.op_type, ())


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """The names of all float32 tensors, constants included."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    typed = {each.name for each in values if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return typed | {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT}


def _computes_half(node: onnx.NodeProto, opset: int) -> bool:
    """Whether the operator writes float16 where it reads float16."""
    import onnx

    if (
        node.op_type in _TYPED
        or node.domain not in ("", "ai.onnx")
        or any(each.HasField("g") for each in node.attribute)
    ):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    types = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    written = {each.type_str for each in schema.outputs}
    return any("tensor(float16)" in types.get(name, ()) for name in written)
