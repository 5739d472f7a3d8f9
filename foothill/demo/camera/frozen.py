"""TensorFlow's frozen graphs, read without TensorFlow: the wire format of protocol buffers, and the few fields of
GraphDef, NodeDef, AttrValue and TensorProto that a network is made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
_DTYPES: Mapping[int, str] = {1: "<f4", 3: "<i4", 9: "<i8"}
_FIXED_BYTES = {1: 8, 5: 4}


class Node(NamedTuple):
    """`inputs` without control dependencies; `strides`, `padding` and `epsilon` where it has them; `value` of a
    constant of floats or integers."""

    name: str
    op: str
    inputs: tuple[str, ...]
    strides: tuple[int, ...] = ()
    padding: str = ""
    epsilon: float = 0.0
    value: Array | None = None


def nodes_of(graph: bytes) -> dict[str, Node]:
    """By name. Raises ValueError for what is no GraphDef."""
    try:
        nodes = [_node(body) for field, body in _fields(graph) if field == 1 and isinstance(body, bytes)]
    except (IndexError, UnicodeDecodeError, struct.error) as error:
        raise ValueError(f"This is no frozen graph of TensorFlow ({error}).") from error
    return {node.name: node for node in nodes}


def _node(body: bytes) -> Node:
    name, op, inputs, attributes = "", "", [], {}
    for field, told in _fields(body):
        if not isinstance(told, bytes):
            continue
        if field == 1:
            name = told.decode()
        elif field == 2:
            op = told.decode()
        elif field == 3 and not told.startswith(b"^"):
            inputs.append(told.decode().removesuffix(":0"))
        elif field == 5:
            entry = dict(_fields(told))
            attributes[_bytes(entry[1]).decode()] = _bytes(entry[2])
    return Node(
        name,
        op,
        tuple(inputs),
        _integers(attributes.get("strides", b"")),
        _bytes(dict(_fields(attributes.get("padding", b""))).get(2, b"")).decode(),
        _float(attributes.get("epsilon", b"")),
        _tensor(attributes["value"]) if op == "Const" and "value" in attributes else None,
    )


def _integers(attribute: bytes) -> tuple[int, ...]:
    """AttrValue.list.i, packed or not."""
    numbers: list[int] = []
    for field, told in _fields(_bytes(dict(_fields(attribute)).get(1, b""))):
        if field == 3 and isinstance(told, int):
            numbers.append(told)
        elif field == 3:
            numbers += _varints(_bytes(told))
    return tuple(numbers)


def _float(attribute: bytes) -> float:
    told = _bytes(dict(_fields(attribute)).get(4, b""))
    return float(struct.unpack("<f", told)[0]) if told else 0.0


def _tensor(attribute: bytes) -> Array | None:
    """AttrValue.tensor; None for one of another type than floats and integers."""
    told = dict(_fields(_bytes(dict(_fields(attribute)).get(8, b""))))
    dtype = _DTYPES.get(told.get(1, 0))  # type: ignore[arg-type]
    if dtype is None:
        return None
    shape = _shape(_bytes(told.get(2, b"")))
    content = _bytes(told.get(4, b"")) or (_bytes(told.get(5, b"")) if dtype == "<f4" else b"")
    values = np.frombuffer(content, dtype) if content else np.array(_numbers(told.get(7, 0)), dtype)
    return np.full(shape, values[0]) if values.size == 1 else values.reshape(shape)


def _numbers(told: int | bytes) -> list[int]:
    """TensorProto.int_val: one, or packed; what is negative comes as its two's complement of 64 bits."""
    numbers = [told] if isinstance(told, int) else list(_varints(told))
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def _shape(body: bytes) -> tuple[int, ...]:
    """TensorShapeProto."""
    return tuple(int(dict(_fields(_bytes(told))).get(1, 0)) for field, told in _fields(body) if field == 2)


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers of fields with their varints, or their bytes."""
    at = 0
    while at < len(body):
        key, at = _varint(body, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(body, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(body, at)
        elif wire in _FIXED_BYTES:
            size = _FIXED_BYTES[wire]
        else:
            raise ValueError(f"This is no frozen graph of TensorFlow (a field of wire type {wire}).")
        yield key >> 3, body[at : at + size]
        at += size


def _varints(body: bytes) -> Iterator[int]:
    at = 0
    while at < len(body):
        value, at = _varint(body, at)
        yield value


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _bytes(told: int | bytes) -> bytes:
    return told if isinstance(told, bytes) else b""
