"""Frozen graphs of TensorFlow, written by hand: an SSD detector whose every weight is known."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

GRIDS = (19, 10, 5, 3, 2, 1)
CHANNELS = 4
BOX = (1.0, -2.0, 0.5, 0.25)
"""What every head says of every box, encoded."""
CLASS_BIASES = (0.0, 1.0, -1.0)
"""Background and two classes, as logits."""


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    told = bytearray()
    while number > 0x7F:
        told.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*told, number))


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(array: np.ndarray) -> bytes:
    """As `value` of a constant; where all are the same, once."""
    kind = {"f": 1, "i": 3}[array.dtype.kind]
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    values = array.ravel()
    told = field(4, array.tobytes())
    if array.size and (values == values[0]).all():
        one = struct.pack("<f", values[0]) if kind == 1 else varint(int(values[0]))
        told = field(5 if kind == 1 else 7, one)
    return field(8, field(1, kind) + field(2, shape) + told)


def node(name: str, op: str, inputs: Sequence[str] = (), **attributes: bytes) -> bytes:
    told = field(1, name.encode()) + field(2, op.encode()) + b"".join(field(3, each.encode()) for each in inputs)
    told += b"".join(field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items())
    return field(1, told)


def constant(name: str, value: np.ndarray) -> bytes:
    return node(name, "Const", value=tensor(value))


def ssd() -> bytes:
    """Features that do not matter, since the heads' weights are 0 and their biases say all; depthwise, and with a batch
    norm in pieces."""
    strided, same = field(1, field(3, b"\1\2\2\1")), field(2, b"SAME")
    plain = field(1, b"".join(field(3, 1) for _ in range(4)))
    graph = [
        node("Preprocessor/sub", "Sub", ["a", "b"]),
        constant("first/weights", np.full((3, 3, 3, CHANNELS), 0.1, np.float32)),
        node("first", "Conv2D", ["Preprocessor/sub", "first/weights"], strides=strided, padding=same),
        node("zoom/0", "Relu6", ["first", "^nothing"]),
        constant("depthwise/weights", np.full((3, 3, CHANNELS, 1), 0.1, np.float32)),
        constant("variance", np.full(CHANNELS, 4.0, np.float32)),
        node("rsqrt", "Rsqrt", ["variance"]),
        constant("beta", np.arange(CHANNELS, dtype=np.float32)),
    ]
    for level in range(1, 9):
        inputs = [f"zoom/{level - 1}", "depthwise/weights"]
        graph += [
            node(f"deep/{level}", "DepthwiseConv2dNative", inputs, strides=strided, padding=same),
            node(f"scaled/{level}", "Mul", [f"deep/{level}", "rsqrt"]),
            node(f"zoom/{level}", "AddV2", [f"scaled/{level}", "beta"]),
        ]
    heads: dict[str, list[str]] = {"box": [], "class": []}
    for at in range(len(GRIDS)):
        for kind, values in (("box", BOX), ("class", CLASS_BIASES)):
            graph += _head(f"{kind}/{at}", f"zoom/{at + 3}", 6 if at else 3, values, (plain, same))
            heads[kind].append(f"{kind}/{at}/rows")
    graph += [
        constant("axis", np.array(1, np.int32)),
        node("concat", "ConcatV2", [*heads["box"], "axis"]),
        node("Squeeze", "Squeeze", ["concat"]),
        node("concat_1", "ConcatV2", [*heads["class"], "axis"]),
    ]
    return b"".join(graph)


def _head(
    name: str, features: str, boxes: int, values: Sequence[float], attributes: tuple[bytes, bytes]
) -> list[bytes]:
    count = len(values)
    shape = [-1, count] if count == len(CLASS_BIASES) else [-1, 1, count]
    return [
        constant(f"{name}/weights", np.zeros((1, 1, CHANNELS, boxes * count), np.float32)),
        node(f"{name}/read", "Identity", [f"{name}/weights"]),
        node(f"{name}/conv", "Conv2D", [features, f"{name}/read"], strides=attributes[0], padding=attributes[1]),
        constant(f"{name}/biases", np.tile(np.array(values, np.float32), boxes)),
        node(f"{name}/biased", "BiasAdd", [f"{name}/conv", f"{name}/biases"]),
        constant(f"{name}/shape", np.array([1, *shape], np.int32)),
        node(f"{name}/rows", "Reshape", [f"{name}/biased", f"{name}/shape"]),
    ]
