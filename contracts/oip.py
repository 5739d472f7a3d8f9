"""Open Inference Protocol v2 over HTTP: its JSON types, its datatypes, and the framing of the binary tensor extension.

Pure, and without numpy: `runtime.serving.models.oip` makes arrays of what is read here.
The protocol: https://github.com/kserve/open-inference-protocol and, for tensors outside the JSON,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from contracts.decoding import UNREADABLE
from contracts.errors import ErrorBody, FoothillError

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that gives the length in bytes of the JSON in front of the binary tensors."""

MAX_TENSORS = 256
MAX_RANK = 8
_MAX_ELEMENTS = 1 << 40
_LENGTH_BYTES = 4

ITEM_BYTES: dict[str, int] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes of one element, little endian. `BYTES` has no fixed size: 4 bytes of length (little endian), then the bytes."""

BYTES = "BYTES"
BF16 = "BF16"
"""The upper half of a float32, which neither numpy nor Python's struct knows."""
DATATYPES = (*ITEM_BYTES, BYTES)

Dimension = Annotated[int, msgspec.Meta(ge=0, le=_MAX_ELEMENTS)]
Shape = Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=MAX_RANK)]
Buffer = bytes | bytearray | memoryview


class InputParameters(msgspec.Struct, frozen=True, omit_defaults=True):
    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    shared_memory_region: str | None = None


class InputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input. `data` holds JSON values in row-major order, flat or nested; None when the tensor is binary."""

    name: str
    shape: Shape
    datatype: str
    parameters: InputParameters = InputParameters()
    data: Any = None


class OutputParameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """`classification` k > 0 asks for the k best labels as `score:index:label` instead of the tensor."""

    binary_data: bool | None = None
    classification: Annotated[int, msgspec.Meta(ge=0)] = 0
    shared_memory_region: str | None = None


class RequestedOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(msgspec.Struct, frozen=True, omit_defaults=True):
    """`binary_data_output`: outputs without a wish of their own come as binary. `timeout`: microseconds, 0 for none.
    `priority`: 1 goes first, 0 is the server's default."""

    binary_data_output: bool = False
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0
    timeout: Annotated[int, msgspec.Meta(ge=0)] = 0


class InferRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """No `outputs` means all of them."""

    inputs: Annotated[tuple[InputTensor, ...], msgspec.Meta(max_length=MAX_TENSORS)]
    id: str = ""
    outputs: Annotated[tuple[RequestedOutput, ...], msgspec.Meta(max_length=MAX_TENSORS)] = ()
    parameters: RequestParameters = RequestParameters()


class BinarySize(msgspec.Struct, frozen=True):
    binary_data_size: int


class OutputTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output: either flat row-major `data`, or `parameters` with the size of its binary part."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: BinarySize | None = None
    data: list[Any] | None = None


class InferResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: tuple[OutputTensor, ...]
    id: str = ""


class TensorMetadata(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ServerMetadata(msgspec.Struct, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...]


class IndexQuestion(msgspec.Struct, frozen=True):
    """The body of `POST /v2/repository/index`: all models, or the ready ones only."""

    ready: bool = False


class IndexEntry(msgspec.Struct, frozen=True):
    """One line of the repository index; `state` is READY or UNAVAILABLE, with the `reason` of the latter."""

    name: str
    version: str
    state: str
    reason: str = ""


_REQUEST = msgspec.json.Decoder(InferRequest)
_HEAD = msgspec.json.Encoder()


def parse_request(body: Buffer, header_length: str | None) -> tuple[InferRequest, dict[str, memoryview]]:
    """The request's JSON, and the raw bytes of each binary input by name (views into `body`, nothing is copied).

    `header_length` is the value of `Inference-Header-Content-Length`, None for a body of JSON alone.
    Raises FoothillError `bad_request` for the JSON, `bad_tensor` for sizes that do not fit.
    """
    view = memoryview(body)
    head, rest = _split(view, header_length)
    try:
        request = _REQUEST.decode(head)
    except UNREADABLE as error:
        raise FoothillError("bad_request", f"The body is no inference request of the protocol: {error}.") from error
    return request, _binary_parts(request.inputs, rest)


def frame(head: msgspec.Struct, parts: Sequence[Buffer]) -> tuple[bytes, int]:
    """The body of a request or a response with binary tensors, and the length of its JSON for the header."""
    encoded = _HEAD.encode(head)
    return b"".join((encoded, *parts)), len(encoded)


def elements(shape: Sequence[int]) -> int:
    return math.prod(shape)


def split_bytes(data: Buffer, count: int, name: str) -> list[bytes]:
    """The `count` elements of a BYTES tensor; raises FoothillError `bad_tensor` when the lengths do not add up."""
    view, offset = memoryview(data), 0
    items: list[bytes] = []
    while len(items) < count and offset + _LENGTH_BYTES <= len(view):
        length = int.from_bytes(view[offset : offset + _LENGTH_BYTES], "little")
        offset += _LENGTH_BYTES
        if offset + length > len(view):
            break
        items.append(bytes(view[offset : offset + length]))
        offset += length
    if len(items) != count or offset != len(view):
        raise bad_tensor(name, f"{count} elements, each 4 bytes of length and its bytes", f"{len(view)} unlike bytes")
    return items


def join_bytes(items: Sequence[bytes]) -> bytes:
    """A BYTES tensor in binary form: each element as 4 bytes of length (little endian) and its bytes."""
    return b"".join(part for item in items for part in (len(item).to_bytes(_LENGTH_BYTES, "little"), item))


def bad_tensor(name: str, expected: str, got: str) -> FoothillError:
    """The one form in which a wrong tensor is refused."""
    return FoothillError("bad_tensor", f"Tensor {name[:80]!r}: expected {expected}, got {got}.")


def _split(body: memoryview, header_length: str | None) -> tuple[memoryview, memoryview]:
    if header_length is None:
        return body, body[:0]
    if not (header_length.isascii() and header_length.isdigit() and 0 < len(header_length) < 16):
        raise FoothillError("bad_request", f"{HEADER_LENGTH}: {header_length[:40]!r} is not a number of bytes.")
    length = int(header_length)
    if not 0 < length <= len(body):
        raise FoothillError(
            "bad_request",
            f"{HEADER_LENGTH} is {length}, but the body has {len(body)} bytes. It is the length of the JSON in front.",
        )
    return body[:length], body[length:]


def _binary_parts(inputs: Sequence[InputTensor], rest: memoryview) -> dict[str, memoryview]:
    parts: dict[str, memoryview] = {}
    offset = 0
    for tensor in inputs:
        size = _binary_size(tensor)
        if size is None:
            continue
        if offset + size > len(rest):
            raise bad_tensor(tensor.name, f"{size} binary bytes", f"{len(rest) - offset} left in the body")
        parts[tensor.name] = rest[offset : offset + size]
        offset += size
    if offset != len(rest):
        raise FoothillError(
            "bad_tensor", f"The body has {len(rest) - offset} bytes after its tensors. Check each binary_data_size."
        )
    return parts


def _binary_size(tensor: InputTensor) -> int | None:
    if tensor.parameters.shared_memory_region is not None:
        raise bad_tensor(tensor.name, "data in the request (shared memory is not served)", "a shared memory region")
    size = tensor.parameters.binary_data_size
    if size is not None and tensor.data is not None:
        raise bad_tensor(tensor.name, "data or binary_data_size", "both")
    return size


class PackedTensor(msgspec.Struct, frozen=True):
    """One tensor of an `application/msgpack` predict body: `data` as in the binary tensor extension."""

    datatype: str
    shape: Shape
    data: memoryview


_PACKED = msgspec.msgpack.Decoder(dict[str, PackedTensor])


def parse_packed(body: Buffer) -> Mapping[str, PackedTensor]:
    """The tensor map of a MessagePack predict body, by input name (views into `body`).

    Raises FoothillError `bad_request`.
    """
    try:
        return _PACKED.decode(body)
    except UNREADABLE as error:
        raise FoothillError(
            "bad_request",
            f"The MessagePack body is no map of input name to {{datatype, shape, data}}: {error}.",
        ) from error


class OipError(msgspec.Struct, frozen=True):
    """The error body under `/v2`: the contract's own fields, and `error`, which clients of the protocol read."""

    error: str
    code: str
    message: str
    source: str
    retryable: bool
    request_id: str


def error_body(body: ErrorBody) -> bytes:
    return _HEAD.encode(OipError(body.message, body.code, body.message, body.source, body.retryable, body.request_id))
