"""Weight-only int4: each block of a MatMul's weights in 16 levels of its own, activations in float."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.graph import Array, Graph, attribute
from model_compiler.quantizing.prepare import load_prepared, save
from model_compiler.quantizing.sqnr import decibels

if TYPE_CHECKING:
    import onnx

Block = Literal[32, 64, 128]
BLOCKS: tuple[Block, ...] = get_args(Block)

_LEVELS = 15
_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
_SMALLEST_HALF = 2.0**-20
"""A scale below it keeps fewer than four binary digits as float16."""

_DOMAIN = "com.microsoft"

Bytes = npt.NDArray[np.uint8]


class Int4Result(msgspec.Struct, frozen=True):
    """What became smaller: the `nodes`, the bytes of their weights before and, with scales and zero points, after, the
    bytes of both files; `sqnr_db` of the weights. `left`: MatMul and Gemm nodes that stayed as they were.
    """

    nodes: tuple[str, ...]
    left: tuple[str, ...]
    weight_bytes: int
    packed_bytes: int
    file_bytes_before: int
    file_bytes: int
    sqnr_db: float

    @property
    def share_smaller(self) -> float:
        """Of the quantized weights."""
        return 1 - self.packed_bytes / self.weight_bytes

    @property
    def file_share_smaller(self) -> float:
        """Of the whole file, against the float one as it was given."""
        return 1 - self.file_bytes / self.file_bytes_before


class Packed(msgspec.Struct, frozen=True):
    """A weight (k, n) in blocks along k, as ONNX Runtime's MatMulNBits reads it: two levels a byte, low half first.

    `levels`: (n, blocks, block / 2) uint8; `scales`: (n, blocks) float16, or float32 where half would lose them;
    `zero_points`: (n, ceil(blocks / 2)) uint8. real = (level - zero point) * scale. `values`: (k, n) float32, what is
    left of the weight.
    """

    levels: Bytes
    scales: Array
    zero_points: Bytes
    values: Floats


def quantize_int4(fp32: Path, out: Path, *, block: int = 32, keep: Collection[str] = ()) -> Int4Result:
    """Writes `out`: every MatMul and Gemm by a constant matrix as MatMulNBits, but for those named in `keep`.

    Gemm becomes MatMul and Add first: MatMulNBits knows no Gemm, and would leave it as it is without a word. Raises
    CompileError for another `block` than 32, 64 or 128, and where no node changed.
    """
    if block not in BLOCKS:
        raise CompileError(f"Blocks of {block} weights are not made. Use 32, 64 or 128.")
    model = load_prepared(fp32)
    graph = Graph(model)
    chosen = {node.name for node in model.graph.node if node.name not in keep and _is_product(graph, node, block)}
    if not chosen:
        kinds = sorted({node.op_type for node in model.graph.node})
        raise CompileError(
            f"Quantization to int4 changed nothing: of {', '.join(kinds)} none is a MatMul or Gemm by a "
            f"constant matrix of {block} rows or more. Use int8 for convolutions."
        )
    tally = _Tally()
    nodes = [each for node in model.graph.node for each in _quantized(graph, node, block, chosen, tally)]
    _replace_nodes(model, nodes)
    save(model, out)
    return Int4Result(
        nodes=tuple(node.name for node in graph.nodes.values() if node.name in chosen),
        left=tuple(
            name for name, node in graph.nodes.items() if node.op_type in ("MatMul", "Gemm") and name not in chosen
        ),
        weight_bytes=tally.weight_bytes,
        packed_bytes=tally.packed_bytes,
        file_bytes_before=fp32.stat().st_size,
        file_bytes=out.stat().st_size,
        sqnr_db=decibels(tally.signal, tally.noise),
    )


def pack(weight: Floats, block: int) -> Packed:
    """The levels of a weight (k, n): per block the range, shrunk by up to a fifth at either end, of least square error.

    Rounding to nearest between the ends of each block; zero is always a level.
    """
    k, n = weight.shape
    blocks = -(-k // block)
    padded = np.zeros((n, blocks * block), np.float32)
    padded[:, :k] = weight.T
    parts = padded.reshape(n, blocks, block)
    lowest, highest = np.minimum(parts.min(axis=2), 0), np.maximum(parts.max(axis=2), 0)
    widest = (highest - lowest) / _LEVELS
    kind = np.float16 if widest[widest > 0].min(initial=1.0) > _SMALLEST_HALF else np.float32
    low, high, least = lowest, highest, np.full(lowest.shape, np.inf, np.float32)
    for left, right in product(_SHRINKS, repeat=2):
        tried_low, tried_high = lowest * np.float32(left), highest * np.float32(right)
        error = np.square(_levels(parts, tried_low, tried_high, kind)[-1] - parts).sum(axis=2)
        better = error < least
        low, high = np.where(better, tried_low, low), np.where(better, tried_high, high)
        least = np.minimum(error, least)
    scales, zeros, levels, values = _levels(parts, low, high, kind)
    left_over = np.ascontiguousarray(values.reshape(n, -1)[:, :k].T)
    return Packed(_two_a_byte(levels), scales.astype(kind), _two_a_byte(zeros), left_over)


def _levels(parts: Floats, low: Floats, high: Floats, kind: type) -> tuple[Floats, Bytes, Bytes, Floats]:
    """Scales, zero points, levels and what they stand for."""
    scales = ((high - low) / _LEVELS).astype(kind).astype(np.float32)
    scales = np.where(scales > 0, scales, np.float32(1))
    zeros = np.clip(np.rint(-low / scales), 0, _LEVELS)
    levels = np.clip(np.rint(parts / scales[..., None]) + zeros[..., None], 0, _LEVELS)
    values = (levels - zeros[..., None]) * scales[..., None]
    return scales, zeros.astype(np.uint8), levels.astype(np.uint8), values


def _two_a_byte(values: Bytes) -> Bytes:
    """Along the last axis, the first in the low half."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << 4), np.uint8)


class _Tally:
    """Bytes and energies over all weights; a weight that two nodes share counts once."""

    def __init__(self) -> None:
        self.weight_bytes = self.packed_bytes = 0
        self.signal = self.noise = 0.0
        self.names: dict[str, list[str]] = {}

    def add(self, weight: Floats, packed: Packed) -> None:
        self.weight_bytes += weight.nbytes
        self.packed_bytes += packed.levels.nbytes + packed.scales.nbytes + packed.zero_points.nbytes
        self.signal += float(np.square(weight, dtype=np.float64).sum())
        self.noise += float(np.square(weight - packed.values, dtype=np.float64).sum())


def _is_product(graph: Graph, node: onnx.NodeProto, block: int) -> bool:
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    weight = _matrix(graph, node)
    if weight is None or weight.dtype != np.float32 or len(weight) < block:
        return False
    if node.op_type == "MatMul":
        return graph.constant(node.input[0]) is None
    return not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0


def _matrix(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """The constant factor as (k, n); None where there is none."""
    weight = graph.constant(node.input[1])
    if weight is None or weight.ndim != 2:
        return None
    return weight.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else weight


def _quantized(
    graph: Graph, node: onnx.NodeProto, block: int, chosen: Collection[str], tally: _Tally
) -> list[onnx.NodeProto]:
    """What stands for the node: itself, or MatMulNBits, with an Add where a Gemm had a third input."""
    import onnx

    weight = _matrix(graph, node) if node.name in chosen else None
    if weight is None:
        return [node]
    casts, constants = _packed_constants(graph, node, weight, block, tally)
    adds = len(node.input) > 2 and bool(node.input[2])
    written = f"{node.output[0]}_product" if adds else node.output[0]
    made = onnx.helper.make_node(
        "MatMulNBits",
        [node.input[0], *constants],
        [written],
        node.name,
        domain=_DOMAIN,
        K=weight.shape[0],
        N=weight.shape[1],
        bits=4,
        block_size=block,
    )
    if not adds:
        return [*casts, made]
    return [*casts, made, onnx.helper.make_node("Add", [written, node.input[2]], [node.output[0]], f"{node.name}_add")]


def _packed_constants(
    graph: Graph, node: onnx.NodeProto, weight: Floats, block: int, tally: _Tally
) -> tuple[list[onnx.NodeProto], list[str]]:
    """Stores the packed weight once, and names its parts; scales stored in half are cast back, at load, once."""
    import onnx

    turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
    stem = f"{node.input[1]}_turned" if turned else node.input[1]
    if stem in tally.names:
        return [], tally.names[stem]
    packed = pack(weight, block)
    tally.add(weight, packed)
    names = [f"{stem}_int4", f"{stem}_scales", f"{stem}_zero_points"]
    for name, values in zip(names, (packed.levels, packed.scales, packed.zero_points), strict=True):
        graph.add_constant(name, values)
    tally.names[stem] = names
    if packed.scales.dtype == np.float32:
        return [], names
    names[1] = f"{stem}_scales_Cast_Output"
    cast = onnx.helper.make_node(
        "Cast", [f"{stem}_scales"], [names[1]], f"{stem}_scales_Cast", to=onnx.TensorProto.FLOAT
    )
    return [cast], names


def _replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    import onnx

    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(copies)
    if not any(each.domain == _DOMAIN for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
