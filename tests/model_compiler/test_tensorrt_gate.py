"""NVIDIA's parser and builder take what the compiler makes for TensorRT; what they do not take, our lint refuses first.

`make test-trt`. The library is TensorRT for RTX, whose parser is TensorRT's; it builds without a GPU and runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from contracts.engines import Machine, Shapes
from contracts.manifest import Precision
from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.quantizing.half import to_fp16
from model_compiler.quantizing.int8 import quantize_tensorrt
from model_compiler.quantizing.observe import observe
from model_compiler.quantizing.placement import Keep
from model_compiler.quantizing.ranges import table_of
from model_compiler.quantizing.tensorrt_lint import check_tensorrt, lint
from model_compiler.replay import Ends
from runtime.serving.engines.tensorrt_builder import Built, build
from runtime.serving.engines.tensorrt_errors import ModelRefused
from runtime.serving.engines.tensorrt_module import Installed, load
from runtime.serving.engines.tensorrt_options import BuildOptions
from tests.model_compiler.quantizing.chains import model, node, normal

pytestmark = [pytest.mark.trt, pytest.mark.filterwarnings("ignore:.*TensorRT-RTX.*:DeprecationWarning")]

LEFT = os.environ.get("FOOTHILL_TRT_ARTIFACTS", "")
"""Where a run of the compiler's tests has left its files."""


@pytest.fixture(scope="module")
def installed() -> Installed:
    return load("tensorrt-rtx")


def built(path: Path, installed: Installed, precision: Precision) -> Built:
    machine = Machine("tensorrt-rtx", installed.version, "linux", "x86_64", "rtx-sm89", sm=89)
    return build(path, BuildOptions(precision, profile(path), "tensorrt-rtx"), machine, installed=installed)


def profile(path: Path) -> tuple[Shapes, ...]:
    """Batches of 1 to 8 where the batch is free."""
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    return tuple(_shapes(each) for each in inputs)


def _shapes(tensor: onnx.ValueInfoProto) -> Shapes:
    sizes = [each.dim_value if each.HasField("dim_value") else 0 for each in tensor.type.tensor_type.shape.dim]
    low, best, high = (tuple(size or batch for size in sizes) for batch in (1, 4, 8))
    return Shapes(tensor.name, low, best, high)


def plain(path: Path) -> Path:
    constants = {"w1": normal(8, 3, 3, 3, seed=1), "w2": normal(16, 8, 3, 3, seed=2), "w3": normal(10, 16, seed=3)}
    constants |= {"b1": normal(8, seed=4), "b3": normal(10, seed=5)}
    nodes = [
        node("Conv", ["image", "w1", "b1"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1"),
        node("MaxPool", ["r1"], "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2"], "c2", pads=[1, 1, 1, 1]),
        node("Clip", ["c2", "zero", "six"], "r2"),
        node("GlobalAveragePool", ["r2"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w3", "b3"], "logits", transB=1),
    ]
    bounds = {"zero": np.float32(0), "six": np.float32(6)}
    return model(path, nodes, {**constants, **bounds}, ["n", 3, 16, 16])


def residual(path: Path) -> Path:
    constants = {f"w{index}": normal(8, 8 if index else 3, 3, 3, seed=index) for index in range(3)}
    nodes = [
        node("Conv", ["image", "w0"], "stem", pads=[1, 1, 1, 1]),
        node("Relu", ["stem"], "r0"),
        node("Conv", ["r0", "w1"], "c1", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c1"], "r1", alpha=0.1),
        node("Conv", ["r1", "w2"], "c2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r0"], "sum"),
        node("Relu", ["sum"], "out"),
    ]
    return model(path, nodes, constants, ["n", 3, 16, 16])


def mobile(path: Path) -> Path:
    """Depthwise, squeeze and excite, swish."""
    constants = {
        "we": normal(16, 3, 1, 1, seed=1),
        "wd": normal(16, 1, 3, 3, seed=2),
        "wp": normal(8, 16, 1, 1, seed=3),
    }
    constants |= {"ws": normal(4, 16, 1, 1, seed=4), "wx": normal(16, 4, 1, 1, seed=5)}
    nodes = [
        node("Conv", ["image", "we"], "e"),
        node("Sigmoid", ["e"], "es"),
        node("Mul", ["e", "es"], "swish"),
        node("Conv", ["swish", "wd"], "d", pads=[1, 1, 1, 1], group=16),
        node("GlobalAveragePool", ["d"], "squeezed"),
        node("Conv", ["squeezed", "ws"], "s1"),
        node("Relu", ["s1"], "s2"),
        node("Conv", ["s2", "wx"], "s3"),
        node("Sigmoid", ["s3"], "gate"),
        node("Mul", ["d", "gate"], "excited"),
        node("Conv", ["excited", "wp"], "out"),
    ]
    return model(path, nodes, constants, ["n", 3, 16, 16])


def pyramid(path: Path) -> Path:
    """Branches, a concatenation, an enlargement."""
    constants = {"wa": normal(8, 3, 3, 3, seed=1), "wb": normal(8, 3, 1, 1, seed=2), "wc": normal(4, 16, 3, 3, seed=3)}
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        node("Conv", ["image", "wa"], "a", pads=[1, 1, 1, 1]),
        node("Conv", ["image", "wb"], "b"),
        node("Concat", ["a", "b"], "both", axis=1),
        node("Relu", ["both"], "r"),
        node("Resize", ["r", "", "scales"], "large", mode="nearest"),
        node("Conv", ["large", "wc"], "out", pads=[1, 1, 1, 1]),
    ]
    return model(path, nodes, constants, ["n", 3, 16, 16])


def matrices(path: Path) -> Path:
    constants = {"w1": normal(48, 64, seed=1), "w2": normal(64, 10, seed=2), "b1": normal(64, seed=3)}
    nodes = [
        node("Flatten", ["image"], "f"),
        node("MatMul", ["f", "w1"], "m1"),
        node("Add", ["m1", "b1"], "a1"),
        node("Relu", ["a1"], "r1"),
        node("MatMul", ["r1", "w2"], "logits"),
    ]
    return model(path, nodes, constants, ["n", 3, 4, 4])


NETS: dict[str, Callable[[Path], Path]] = {each.__name__: each for each in (plain, residual, mobile, pyramid, matrices)}
KEPT: Mapping[str, Mapping[str, Mapping[str, Keep]]] = {
    "all int8": {name: {} for name in NETS},
    "one in fp16": {
        "plain": {"c2": "fp16"},
        "residual": {"c1": "fp16"},
        "mobile": {"d": "fp16"},
        "matrices": {"logits": "fp16"},
    },
    "one in fp32": {
        "plain": {"c1": "fp32"},
        "residual": {"c2": "fp32"},
        "mobile": {"out": "fp32"},
        "pyramid": {"a": "fp32"},
    },
}
CASES = [(net, words, keep) for words, kept in KEPT.items() for net, keep in kept.items()]


def quantized(path: Path, net: str, keep: Mapping[str, Keep] | None = None) -> Path:
    """`net` as the compiler makes it for TensorRT."""
    fp32 = NETS[net](path / "fp32.onnx")
    loaded = onnx.load(str(fp32)).graph
    sizes = [each.dim_value or 16 for each in loaded.input[0].type.tensor_type.shape.dim]
    samples = Arrays(normal(*sizes, seed=9), np.zeros(sizes[0], np.int64))
    table = table_of(observe(fp32, samples, Ends("image", (loaded.output[0].name,))), "minmax")
    quantize_tensorrt(fp32, path / "trt.s8.onnx", table, keep=keep or {})
    return path / "trt.s8.onnx"


@pytest.mark.parametrize(("net", "words", "keep"), CASES, ids=[f"{net}, {words}" for net, words, _ in CASES])
def test_nvidia_takes_an_int8_artifact(
    net: str, words: str, keep: Mapping[str, Keep], tmp_path: Path, installed: Installed
) -> None:
    path = quantized(tmp_path, net, keep)
    check_tensorrt(path)
    made = built(path, installed, "int8")
    assert len(made.engine) > 1000
    assert not [note for note in made.notes if "INT8" in note or "UINT8" in note]


@pytest.mark.parametrize("net", NETS)
def test_nvidia_takes_a_half_precision_artifact(net: str, tmp_path: Path, installed: Installed) -> None:
    to_fp16(NETS[net](tmp_path / "fp32.onnx"), tmp_path / "fp16.onnx")
    assert len(built(tmp_path / "fp16.onnx", installed, "fp16").engine) > 1000


def int32_bias(made: onnx.ModelProto) -> None:
    """As ONNX Runtime's quantizer writes them."""
    layer = next(each for each in made.graph.node if each.op_type == "Conv" and len(each.input) > 2)
    for name, values in {"bq": np.ones(8, np.int32), "bs": np.full(8, 1e-4, np.float32)}.items():
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bq", "bs"], ["bd"], name="bias", axis=0))
    layer.input[2] = "bd"


def unsigned(made: onnx.ModelProto, zero: int = 0) -> None:
    """What NNCF writes after a ReLU, and ONNX Runtime everywhere."""
    pair = next(each for each in made.graph.node if each.op_type == "QuantizeLinear")
    made.graph.initializer.append(numpy_helper.from_array(np.uint8(zero), "unsigned"))
    for each in made.graph.node:
        if each.op_type == "QuantizeLinear" and each is pair:
            each.input[2] = "unsigned"
        elif each.op_type == "DequantizeLinear" and each.input[0] == pair.output[0]:
            del each.input[2:]
            each.input.append("unsigned")


def asymmetric(made: onnx.ModelProto) -> None:
    pair = next(each for each in made.graph.node if each.op_type == "QuantizeLinear")
    made.graph.initializer.append(numpy_helper.from_array(np.int8(3), "shifted"))
    for each in made.graph.node:
        if each is pair or (each.op_type == "DequantizeLinear" and each.input[0] == pair.output[0]):
            del each.input[2:]
            each.input.append("shifted")


def shifted_unsigned(made: onnx.ModelProto) -> None:
    unsigned(made, zero=128)


@pytest.mark.parametrize(
    ("spoil", "lint_says", "nvidia_says"),
    [
        (int32_bias, "stored as int32", "input has type Int32 but must have type"),
        (asymmetric, "zero point is 3, not 0", "Non-zero zero point is not supported"),
        (shifted_unsigned, "it is uint8", "Non-zero zero point is not supported"),
        (unsigned, "it is uint8", ""),
    ],
    ids=["int32 bias", "asymmetric", "uint8 around 128", "uint8 around 0"],
)
def test_what_tensorrt_does_not_take_is_refused_by_the_lint_first(
    spoil: Callable[[onnx.ModelProto], None],
    lint_says: str,
    nvidia_says: str,
    tmp_path: Path,
    installed: Installed,
) -> None:
    path = quantized(tmp_path, "plain")
    made = onnx.load(str(path))
    assert lint(made) == []
    spoil(made)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(CompileError, match=lint_says):
        check_tensorrt(path)
    if nvidia_says:
        with pytest.raises(ModelRefused, match=nvidia_says):
            built(path, installed, "int8")
    else:
        # The parser reads it as int8 with no more than a warning: values above 127 are lost. The lint is stricter.
        notes = built(path, installed, "int8").notes
        assert any("UINT8" in note and "Defaulting to INT8" in note for note in notes), notes


def meant(path: Path) -> Precision | None:
    """int8 files that the lint passes, by whatever name, and files of ONNX's own operators with halves in them.

    None for all others, and for stand-ins that are no network.
    """
    try:
        made = onnx.load(str(path))
    except (DecodeError, onnx.checker.ValidationError):  # what a test broke, or whose weights lie elsewhere
        return None
    if not made.graph.node:
        return None
    if path.name.startswith("trt.s8"):
        assert lint(made) == []
    if not lint(made):
        return "int8"
    own = all(each.domain == "" for each in made.opset_import)
    kinds = {each.data_type for each in made.graph.initializer}
    kinds |= {each.attribute[0].i for each in made.graph.node if each.op_type == "Cast"}
    quantized = any(each.op_type in ("QuantizeLinear", "DequantizeLinear") for each in made.graph.node)
    return "fp16" if own and onnx.TensorProto.FLOAT16 in kinds and not quantized else None


def left() -> list[Any]:
    files = sorted(file for file in Path(LEFT).rglob("*.onnx") if file.is_file()) if LEFT else []
    by_content = {file.read_bytes(): file for file in files}
    return [pytest.param(file, id=str(file.relative_to(LEFT))) for file in by_content.values()]


@pytest.mark.parametrize("path", left())
def test_nvidia_takes_every_file_of_a_test_run_that_is_meant_for_it(path: Path, installed: Installed) -> None:
    precision = meant(path)
    if precision is None:
        pytest.skip("not for TensorRT")
    assert len(built(path, installed, precision).engine) > 1000
