"""Tensors in the protocol's binary form, and back. BYTES are arrays of `str`, BF16 arrays of float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts import oip

Array = npt.NDArray[Any]

NUMPY: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    oip.BF16: "<f4",
    "FP32": "<f4",
    "FP64": "<f8",
    oip.BYTES: "O",
}


def blank(datatype: str, shape: Sequence[int]) -> Array:
    """Zeros, or empty texts."""
    return np.full(shape, "" if datatype == oip.BYTES else 0, NUMPY[datatype])


def to_bytes(array: Array, datatype: str) -> bytes:
    if datatype == oip.BYTES:
        return oip.join_bytes([str(item).encode() for item in array.ravel()])
    plain = np.ascontiguousarray(array, NUMPY[datatype])
    return _rounded(plain.view("<u4")).tobytes() if datatype == oip.BF16 else plain.tobytes()


def from_bytes(tensor: oip.OutputTensor, data: oip.Buffer) -> Array:
    """Flat. Raises FoothillError, ValueError and KeyError for bytes that are not what the tensor says."""
    if tensor.datatype == oip.BYTES:
        items = oip.split_bytes(data, oip.elements(tensor.shape), tensor.name)
        return np.array([item.decode() for item in items], NUMPY[oip.BYTES])
    if tensor.datatype == oip.BF16:
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, NUMPY[tensor.datatype])


def _rounded(bits: Array) -> Array:
    """The bits of float32 as those of BF16, to nearest, ties to even."""
    rounded: Array = (bits + np.uint32(0x7FFF) + (bits >> 16 & np.uint32(1))) >> 16
    return rounded.astype("<u2")
