"""Tensors of the Open Inference Protocol v2, with the binary-tensor extension, without needing numpy.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

HEADER_LENGTH = "Inference-Header-Content-Length"

# OIP name: (numpy's code, struct's code).
_TYPES = {
    "BOOL": ("b1", "?"),
    "UINT8": ("u1", "B"),
    "UINT16": ("u2", "H"),
    "UINT32": ("u4", "I"),
    "UINT64": ("u8", "Q"),
    "INT8": ("i1", "b"),
    "INT16": ("i2", "h"),
    "INT32": ("i4", "i"),
    "INT64": ("i8", "q"),
    "FP16": ("f2", "e"),
    "FP32": ("f4", "f"),
    "FP64": ("f8", "d"),
}
_NAMES = {code: name for name, (code, _) in _TYPES.items()}


class Array(Protocol):
    """What the client needs of a numpy array."""

    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def astype(self, dtype: Any, /) -> Any: ...
    def tobytes(self) -> bytes: ...


class Tensor(msgspec.Struct, frozen=True):
    """`data` holds the elements in C order, little-endian; of `BYTES`, each with a 4-byte length before it."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def values(self) -> tuple[Any, ...]:
        """The elements, flat: numbers, or bytes for `BYTES`."""
        if self.datatype == "BYTES":
            return tuple(_split(self.data))
        code = _struct_code(self.datatype)
        return struct.unpack(f"<{len(self.data) // struct.calcsize(code)}{code}", self.data)

    def numpy(self) -> npt.NDArray[np.generic]:
        """The tensor as a read-only array over `data`. Needs numpy; raises ValueError for `BYTES`."""
        import numpy

        if self.datatype not in _TYPES:
            raise ValueError(f"A {self.datatype} tensor has no numpy form; use values().")
        return numpy.frombuffer(self.data, dtype=f"<{_TYPES[self.datatype][0]}").reshape(self.shape)


Given = Tensor | tuple[str, Sequence[int], bytes] | Array
"""How a caller may give an input: a Tensor, (datatype, shape, bytes), or a numpy array."""


def as_tensor(given: Given) -> Tensor:
    """Raises ValueError for an array of objects, or a length that does not fit the shape."""
    if isinstance(given, Tensor):
        return _fitting(given)
    if isinstance(given, tuple):
        datatype, shape, data = given
        return _fitting(Tensor(datatype, tuple(shape), bytes(data)))
    return _of_array(given)


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _Entry(msgspec.Struct):
    """One tensor of a request or an answer. `data` may be nested as the shape is."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)
    data: list[Any] | None = None


class _Head(msgspec.Struct):
    outputs: tuple[_Entry, ...]


def encode_request(inputs: Mapping[str, Given], outputs: Sequence[str]) -> tuple[bytes, int]:
    """Body and length of its JSON head. All outputs when `outputs` is empty; they come back as binary too."""
    tensors = {name: as_tensor(given) for name, given in inputs.items()}
    head: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "datatype": tensor.datatype,
                "shape": tensor.shape,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for name, tensor in tensors.items()
        ]
    }
    if outputs:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    else:
        head["parameters"] = {"binary_data_output": True}
    encoded = msgspec.json.encode(head)
    return b"".join((encoded, *(tensor.data for tensor in tensors.values()))), len(encoded)


def decode_answer(body: bytes, head_length: str | None) -> dict[str, Tensor]:
    """The outputs of an answer; `head_length` is its `Inference-Header-Content-Length`, None when all is JSON.

    Raises ValueError (or msgspec.DecodeError, which is one) for a body out of form.
    """
    length = len(body) if head_length is None else int(head_length)
    if not 0 <= length <= len(body):
        raise ValueError(f"{HEADER_LENGTH} is {length}, the body has {len(body)} bytes.")
    outputs: dict[str, Tensor] = {}
    at = length
    for entry in msgspec.json.decode(body[:length], type=_Head).outputs:
        size = entry.parameters.binary_data_size
        data = _packed(entry) if size is None else body[at : at + size]
        at += size or 0
        outputs[entry.name] = _fitting(Tensor(entry.datatype, entry.shape, data))
    if at != len(body):
        raise ValueError(f"The outputs take {at} bytes, the body has {len(body)}.")
    return outputs


def _of_array(array: Array) -> Tensor:
    code = array.dtype.str[1:]
    if code not in _NAMES:
        raise ValueError(f"An array of {array.dtype} cannot be sent; give (datatype, shape, bytes) instead.")
    little = array.astype(f"<{code}") if array.dtype.str[0] == ">" else array
    return Tensor(_NAMES[code], tuple(array.shape), little.tobytes())


def _fitting(tensor: Tensor) -> Tensor:
    if tensor.datatype not in _TYPES:
        return tensor
    expected = math.prod(tensor.shape) * struct.calcsize(_struct_code(tensor.datatype))
    if expected != len(tensor.data):
        raise ValueError(f"{tensor.datatype} {list(tensor.shape)} takes {expected} bytes, not {len(tensor.data)}.")
    return tensor


def _struct_code(datatype: str) -> str:
    if datatype not in _TYPES:
        raise ValueError(f"{datatype!r} is not a datatype of numbers: {', '.join(_TYPES)}.")
    return _TYPES[datatype][1]


def _packed(entry: _Entry) -> bytes:
    values = list(_flat(entry.data or []))
    if entry.datatype == "BYTES":
        texts = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    try:
        return struct.pack(f"<{len(values)}{_struct_code(entry.datatype)}", *values)
    except struct.error as error:
        raise ValueError(f"Output {entry.name!r} is not {entry.datatype}: {error}.") from error


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _split(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length
