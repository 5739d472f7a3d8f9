"""Small nets of the kinds that quantization must get right, and what the quantizers need of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_compiler.data.samples import Arrays, Floats
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.ranges import Method, Table, table_of
from model_compiler.replay import Ends
from tests.model_compiler.quantizing.chains import Array, model, node, normal

ENDS = Ends("image", ("logits",))


def pictures(rows: int = 32, seed: int = 0) -> Floats:
    return normal(rows, 3, 12, 12, seed=seed)


def table_for(path: Path, method: Method = "minmax", ends: Ends = ENDS, inputs: Floats | None = None) -> Table:
    inputs = pictures() if inputs is None else inputs
    return table_of(observe(path, Arrays(inputs, np.zeros(len(inputs), np.int64)), ends), method)


def weight(*shape: int, seed: int) -> Array:
    return np.asarray(normal(*shape, seed=seed) / np.sqrt(np.prod(shape[1:])), np.float32)


def residual(path: Path) -> Path:
    """Convolutions with ReLU and ReLU6, a residual join, a pool, two Gemms."""
    constants: dict[str, Array] = {
        "w1": weight(16, 3, 3, 3, seed=1),
        "b1": normal(16, seed=2) / 4,
        "w2": weight(16, 16, 3, 3, seed=3),
        "b2": normal(16, seed=4) / 4,
        "w3": weight(16, 16, 3, 3, seed=5),
        "w4": weight(24, 16, seed=6),
        "b4": normal(24, seed=7) / 4,
        "w5": weight(24, 5, seed=8),
        "zero": np.asarray(0, np.float32),
        "six": np.asarray(6, np.float32),
    }
    nodes = [
        node("Conv", ["image", "w1", "b1"], "c1", pads=[1, 1, 1, 1]),
        node("Clip", ["c1", "zero", "six"], "r1"),
        node("Conv", ["r1", "w2", "b2"], "c2", pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], "r2"),
        node("Conv", ["r2", "w3"], "c3", pads=[1, 1, 1, 1]),
        node("Add", ["c3", "r1"], "a3"),
        node("Relu", ["a3"], "r3"),
        node("MaxPool", ["r3"], "p3", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p3"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w4", "b4"], "h", transB=1),
        node("Relu", ["h"], "rh"),
        node("Gemm", ["rh", "w5"], "logits"),
    ]
    return model(path, nodes, constants, ["n", 3, 12, 12])


def swish(path: Path) -> Path:
    """What int8 finds hard: a depthwise convolution, a gate from a pooled picture, swish."""
    constants = {
        "w1": weight(16, 3, 1, 1, seed=1),
        "w2": weight(16, 1, 3, 3, seed=2),
        "b2": normal(16, seed=3) / 4,
        "w3": weight(16, 16, 1, 1, seed=4),
        "w4": weight(8, 16, 1, 1, seed=5),
        "w5": weight(8, 5, seed=6),
    }
    nodes = [
        node("Conv", ["image", "w1"], "c1"),
        node("Sigmoid", ["c1"], "s1"),
        node("Mul", ["c1", "s1"], "m1"),
        node("Conv", ["m1", "w2", "b2"], "c2", pads=[1, 1, 1, 1], group=16),
        node("LeakyRelu", ["c2"], "m2", alpha=0.1),
        node("GlobalAveragePool", ["m2"], "g2"),
        node("Conv", ["g2", "w3"], "c3"),
        node("Sigmoid", ["c3"], "s3"),
        node("Mul", ["m2", "s3"], "m3"),
        node("Conv", ["m3", "w4"], "c4"),
        node("Concat", ["c4", "c4"], "k4", axis=2),
        node("ReduceMean", ["k4", "axes"], "g4", keepdims=0),
        node("Gemm", ["g4", "w5"], "logits"),
    ]
    return model(path, nodes, {**constants, "axes": np.array([2, 3])}, ["n", 3, 12, 12])
