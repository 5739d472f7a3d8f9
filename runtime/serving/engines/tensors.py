"""Arrays from the bytes and the JSON values of a request, checked against what the model takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts import oip
from contracts.manifest import TensorSpec
from contracts.oip import bad_tensor

Array = npt.NDArray[Any]

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    oip.BF16: np.dtype("<f4"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    oip.BYTES: np.dtype(object),
}
"""Datatypes of the protocol as arrays; BYTES is an array of `str`, as ONNX strings are. BF16, which numpy does not
have, is an array of float32 whose numbers BF16 can hold: it is packed where it leaves."""

_BY_KIND = {"b": "true or false", "i": "integers", "u": "integers", "f": "numbers"}


def check_shape(name: str, shape: Sequence[int], spec: TensorSpec, max_batch: int) -> None:
    """Raises FoothillError `bad_tensor` unless `shape` is `spec.shape` with every -1 filled in.

    A leading -1 is the batch, 1 to `max_batch`.
    """
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, got) and got > 0 for want, got in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise bad_tensor(name, f"shape {_shown(spec.shape)}", f"shape {_shown(shape)}")
    if spec.shape[:1] == (-1,) and shape[0] > max_batch:
        raise bad_tensor(name, f"at most {max_batch} rows", f"{shape[0]}: send several requests")


def check_datatype(name: str, datatype: str, spec: TensorSpec) -> None:
    if datatype != spec.datatype:
        raise bad_tensor(name, f"datatype {spec.datatype}", f"datatype {datatype[:40]!r}")


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: oip.Buffer) -> Array:
    """A read-only view into `data` (BYTES, BOOL and BF16: a new array); it may be unaligned.

    Raises FoothillError `bad_tensor`.
    """
    count = oip.elements(shape)
    if datatype == oip.BYTES:
        return _strings(name, [_text(name, item) for item in oip.split_bytes(data, count, name)], shape)
    size = count * oip.ITEM_BYTES[datatype]
    if len(data) != size:
        raise bad_tensor(name, f"{size} bytes for {datatype} {_shown(shape)}", f"{len(data)}")
    if datatype == "BOOL":
        # A byte that is neither 0 nor 1 is no truth value to compiled code, whatever numpy shows.
        truth: Array = np.frombuffer(data, dtype=np.uint8) != 0
        return truth.reshape(tuple(shape))
    if datatype == oip.BF16:
        return unpacked_bf16(np.frombuffer(data, "<u2")).reshape(tuple(shape))
    return np.frombuffer(data, dtype=NUMPY[datatype]).reshape(tuple(shape))


def from_values(name: str, datatype: str, shape: Sequence[int], values: object) -> Array:
    """An array of JSON values, flat or nested, in row-major order. Raises FoothillError `bad_tensor`."""
    if not isinstance(values, list):
        raise bad_tensor(name, "data as an array of values", "no data")
    flat = _flattened(values)
    count = oip.elements(shape)
    if len(flat) != count:
        raise bad_tensor(name, f"{count} values for shape {_shown(shape)}", f"{len(flat)}")
    if datatype == oip.BYTES:
        if not all(isinstance(value, str) for value in flat):
            raise bad_tensor(name, "strings", "other values")
        return _strings(name, flat, shape)
    array = _numbers(name, NUMPY[datatype], flat).reshape(tuple(shape))
    return _rounded_to_bf16(name, array) if datatype == oip.BF16 else array


def to_bytes(array: Array, datatype: str) -> oip.Buffer:
    """The array in the binary form of the protocol; a view where it can be one."""
    if datatype == oip.BYTES:
        return oip.join_bytes([str(item).encode() for item in array.ravel()])
    if datatype == oip.BF16:
        return packed_bf16(array).tobytes()
    contiguous = np.ascontiguousarray(array)
    return contiguous.data if contiguous.ndim and contiguous.size else contiguous.tobytes()


def to_values(name: str, array: Array) -> list[Any]:
    """The array as flat JSON values. Raises FoothillError `bad_tensor` when JSON has no word for one of them."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise bad_tensor(name, "finite numbers, which JSON can carry", "NaN or infinity: ask for binary_data")
    values: list[Any] = array.ravel().tolist()
    return values


def packed_bf16(array: Array) -> npt.NDArray[np.uint16]:
    """The bits of BF16 for an array of float32, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), bits >> 16 | 0x40, rounded).astype(np.uint16)


def unpacked_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The same numbers as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _rounded_to_bf16(name: str, array: Array) -> Array:
    rounded = unpacked_bf16(packed_bf16(array))
    if not np.isfinite(rounded).all():
        raise bad_tensor(name, "numbers that fit bfloat16", "one out of range")
    return rounded


def _flattened(values: list[Any]) -> list[Any]:
    for _ in range(oip.MAX_RANK):
        if not values or not isinstance(values[0], list):
            return values
        if not all(isinstance(value, list) for value in values):
            return values
        values = list(itertools.chain.from_iterable(values))
    return values


def _numbers(name: str, dtype: np.dtype[Any], flat: list[Any]) -> Array:
    expected = _BY_KIND[dtype.kind]
    allowed = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    if not set(map(type, flat)) <= set(allowed):
        raise bad_tensor(name, expected, "other values")
    try:
        with np.errstate(over="raise"):
            array = np.array(flat, dtype=dtype)
    except (OverflowError, FloatingPointError) as error:
        raise bad_tensor(name, f"{expected} that fit {dtype.name}", "one out of range") from error
    return array


def _strings(name: str, items: Sequence[str], shape: Sequence[int]) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(tuple(shape))


def _text(name: str, item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise bad_tensor(name, "UTF-8 text in every element", "other bytes") from error


def _shown(shape: Sequence[int]) -> str:
    return "[" + ",".join("batch" if size == -1 else str(size) for size in shape) + "]"
