"""Tensors for callers, with numpy or without, and the bodies of `/v2/models/{model}/infer` made of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from contracts.oip import (
    BF16,
    BYTES,
    HEADER_LENGTH,
    ITEM_BYTES,
    InferRequest,
    InferResponse,
    InputParameters,
    InputTensor,
    OutputParameters,
    OutputTensor,
    RequestedOutput,
    RequestParameters,
    elements,
    frame,
    join_bytes,
    split_bytes,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Codes of the struct module; with the size they are numpy's codes too, but for BOOL. Neither has one for BF16.
_CODES = dict(zip((name for name in ITEM_BYTES if name != BF16), "?BHIQbhiqefd", strict=True))
_KINDS = {"?": "b", "B": "u", "H": "u", "I": "u", "Q": "u", "e": "f", "f": "f", "d": "f"}
_NUMPY = {name: f"{_KINDS.get(code, 'i')}{ITEM_BYTES[name]}" for name, code in _CODES.items()}
_NAMES = {code: name for name, code in _NUMPY.items()}


class Array(Protocol):
    """What the client needs of a numpy array."""

    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def astype(self, dtype: Any, /) -> Any: ...
    def tobytes(self) -> bytes: ...


class Tensor(msgspec.Struct, frozen=True):
    """`data` holds the elements in row-major order, little endian; of `BYTES`, each with a 4-byte length before it."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def values(self) -> tuple[Any, ...]:
        """The elements, flat: numbers, or bytes for `BYTES`."""
        count = elements(self.shape)
        if self.datatype == BYTES:
            return tuple(split_bytes(self.data, count, BYTES))
        if self.datatype == BF16:
            return struct.unpack(f"<{count}f", _widened(self.data))
        return struct.unpack(f"<{count}{_CODES[self.datatype]}", self.data)

    def numpy(self) -> npt.NDArray[np.generic]:
        """The tensor as a read-only array over `data`; `BF16` as one of float32. Needs numpy; raises ValueError for
        `BYTES`."""
        import numpy

        if self.datatype == BYTES:
            raise ValueError("A BYTES tensor has no numpy form; use values().")
        if self.datatype == BF16:
            return numpy.frombuffer(_widened(self.data), dtype="<f4").reshape(self.shape)
        return numpy.frombuffer(self.data, dtype=f"<{_NUMPY[self.datatype]}").reshape(self.shape)


Given = Tensor | tuple[str, Sequence[int], bytes] | Array
"""How a caller may give an input: a Tensor, (datatype, shape, bytes), or a numpy array, also one of ml_dtypes'
bfloat16."""


def as_tensor(given: Given) -> Tensor:
    """Raises ValueError for an unknown datatype, an array of objects, or a length that does not fit the shape."""
    if isinstance(given, Tensor):
        return _fitting(given)
    if isinstance(given, tuple):
        datatype, shape, data = given
        return _fitting(Tensor(datatype, tuple(shape), bytes(data)))
    return _of_array(given)


def encode_request(inputs: Mapping[str, Given], outputs: Sequence[str]) -> tuple[bytes, int]:
    """Body and length of its JSON head. All outputs when `outputs` is empty; they are asked for as binary."""
    tensors = {name: as_tensor(given) for name, given in inputs.items()}
    head = InferRequest(
        inputs=tuple(
            InputTensor(name, tensor.shape, tensor.datatype, InputParameters(binary_data_size=len(tensor.data)))
            for name, tensor in tensors.items()
        ),
        outputs=tuple(RequestedOutput(name, OutputParameters(binary_data=True)) for name in outputs),
        parameters=RequestParameters(binary_data_output=True),
    )
    return frame(head, [tensor.data for tensor in tensors.values()])


def decode_answer(body: bytes, head_length: str | None) -> dict[str, Tensor]:
    """The outputs of an answer; `head_length` is its `Inference-Header-Content-Length`, None when all is JSON.

    Raises ValueError (msgspec.DecodeError is one) for a body out of form.
    """
    length = len(body) if head_length is None else int(head_length)
    if not 0 <= length <= len(body):
        raise ValueError(f"{HEADER_LENGTH} is {length}, the body has {len(body)} bytes")
    outputs: dict[str, Tensor] = {}
    at = length
    for entry in msgspec.json.decode(body[:length], type=InferResponse).outputs:
        if entry.parameters is None:
            data = _packed(entry)
        else:
            data = body[at : at + entry.parameters.binary_data_size]
            at += entry.parameters.binary_data_size
        outputs[entry.name] = _fitting(Tensor(entry.datatype, entry.shape, data))
    if at != len(body):
        raise ValueError(f"the outputs end at byte {at}, the body at {len(body)}")
    return outputs


def _of_array(array: Array) -> Tensor:
    if array.dtype.name == "bfloat16":
        return Tensor(BF16, tuple(array.shape), array.tobytes())
    code = array.dtype.str[1:]
    if code not in _NAMES:
        raise ValueError(f"An array of {array.dtype} cannot be sent; give (datatype, shape, bytes) instead.")
    little = array.astype(f"<{code}") if array.dtype.str[0] == ">" else array
    return Tensor(_NAMES[code], tuple(array.shape), little.tobytes())


def _fitting(tensor: Tensor) -> Tensor:
    if tensor.datatype == BYTES:
        return tensor
    if tensor.datatype not in ITEM_BYTES:
        raise ValueError(f"{tensor.datatype!r} is no datatype: {', '.join(ITEM_BYTES)} or {BYTES}")
    expected = elements(tensor.shape) * ITEM_BYTES[tensor.datatype]
    if expected != len(tensor.data):
        raise ValueError(f"{tensor.datatype} {list(tensor.shape)} takes {expected} bytes, not {len(tensor.data)}")
    return tensor


def _packed(entry: OutputTensor) -> bytes:
    values = list(_flat(entry.data or []))
    if entry.datatype == BYTES:
        return join_bytes([str(value).encode() for value in values])
    try:
        if entry.datatype == BF16:
            return _narrowed(struct.pack(f"<{len(values)}f", *values))
        return struct.pack(f"<{len(values)}{_CODES[entry.datatype]}", *values)
    except (KeyError, struct.error) as error:
        raise ValueError(f"output {entry.name!r} is not {entry.datatype}: {error}") from error


def _widened(data: bytes) -> bytes:
    """Numbers of BF16 as float32, whose upper half they are."""
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[::2], data[1::2]
    return bytes(wide)


def _narrowed(data: bytes) -> bytes:
    """Numbers of float32 as BF16, of which they are."""
    narrow = bytearray(len(data) // 2)
    narrow[::2], narrow[1::2] = data[2::4], data[3::4]
    return bytes(narrow)


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value
