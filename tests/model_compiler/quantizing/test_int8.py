"""Int8, one table and two files: near the float model, in integers where the engines compute in integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from model_compiler.digits.recipe import DigitsBundles
from model_compiler.errors import CompileError
from model_compiler.quantizing.int8 import Keep, quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.ranges import METHODS, Method, Table
from model_compiler.quantizing.sqnr import sqnr_db
from model_compiler.quantizing.tensorrt_lint import lint
from model_compiler.replay import Ends, all_outputs_of, outputs_of
from tests.model_compiler.quantizing.chains import Array, model, node, normal
from tests.model_compiler.quantizing.nets import ENDS, pictures, residual, swish, table_for

NETS = {"residual": residual, "swish": swish}
Build = Callable[[Path], Path]


def arrays_of(path: Path) -> dict[str, Array]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer}


def computed(path: Path) -> Counter[str]:
    """The operators that ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(each.op_type for each in onnx.load(options.optimized_model_filepath).graph.node)


def db(fp32: Path, quantized: Path, *, literal: bool = False) -> float:
    inputs = pictures(16, seed=9)
    return sqnr_db(outputs_of(fp32, inputs, ENDS), outputs_of(quantized, inputs, ENDS, literal=literal))


def test_digits_weights_are_signed_per_channel_and_activations_unsigned(bundles: DigitsBundles) -> None:
    arrays = arrays_of(bundles.edge.file("cpu.u8s8.onnx"))
    weights = {name: array for name, array in arrays.items() if name.endswith("weight_quantized")}
    assert len(weights) == 3
    for name, weight in weights.items():
        assert weight.dtype == np.int8
        assert 64 <= np.abs(weight.astype(int)).max() <= 127
        assert arrays[name.replace("_quantized", "_scale")].shape == (weight.shape[0],)
    model = onnx.load(str(bundles.edge.file("cpu.u8s8.onnx")))
    zero_points = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zero_points
    assert all(arrays[name].dtype == np.uint8 for name in zero_points)
    assert [each.domain for each in model.opset_import] == [""]


def test_logits_stay_float(bundles: DigitsBundles) -> None:
    model = onnx.load(str(bundles.edge.file("cpu.u8s8.onnx")))
    assert model.graph.node[-1].op_type == "Gemm"
    assert model.graph.node[-1].output[0] == "logits"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_both_files_answer_nearly_as_the_float_model(tmp_path: Path, name: str, method: Method) -> None:
    fp32 = NETS[name](tmp_path / "fp32.onnx")
    table = table_for(fp32, method)
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table)
    quantize_tensorrt(fp32, tmp_path / "trt.onnx", table)
    least = {"minmax": 24, "percentile": 24, "entropy": 15}[method]
    assert db(fp32, tmp_path / "cpu.onnx") > least
    assert db(fp32, tmp_path / "trt.onnx", literal=True) > least
    assert lint(onnx.load(str(tmp_path / "trt.onnx"))) == []


def test_onnx_runtime_computes_every_layer_in_integers(tmp_path: Path) -> None:
    expected = {
        "residual": {"QLinearConv": 3, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 2},
        "swish": {"QLinearConv": 4, "QLinearSigmoid": 2, "QLinearMul": 2, "QLinearLeakyRelu": 1, "QGemm": 1}
        | {"QLinearGlobalAveragePool": 2, "QLinearConcat": 1},
    }
    for name, build in NETS.items():
        fp32 = build(tmp_path / f"{name}.onnx")
        quantize_cpu(fp32, tmp_path / f"{name}.cpu.onnx", table_for(fp32))
        found = computed(tmp_path / f"{name}.cpu.onnx")
        assert {kind: found[kind] for kind in expected[name]} == expected[name]
        left = set(found) - set(expected[name])
        assert left <= {"QuantizeLinear", "Transpose", "Flatten", "Reshape", "MaxPool", "NhwcMaxPool"}, left


@pytest.mark.parametrize("groups", [1, 2])
def test_no_sum_of_two_products_saturates(tmp_path: Path, groups: int) -> None:
    """As written and as x86 kernels sum it, though all weights and all pictures are as large as they can be."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.choice([-1, 1, 1, 1], (32, 32 // groups, 3, 3)).astype(np.float32),
        "m": rng.choice([-1, 1, 1, 1], (32, 10)).astype(np.float32),
    }
    nodes = [
        node("Conv", ["image", "w"], "c", pads=[1, 1, 1, 1], group=groups),
        node("GlobalAveragePool", ["c"], "g"),
        node("Flatten", ["g"], "f"),
        node("MatMul", ["f", "m"], "logits"),
    ]
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 32, 6, 6])
    inputs = np.ones((4, 32, 6, 6), np.float32)
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table_for(fp32, inputs=inputs))
    literal, summed = (outputs_of(tmp_path / "cpu.onnx", inputs, ENDS, literal=each) for each in (True, False))
    assert sqnr_db(literal, summed) > 40


def test_depthwise_weights_use_all_8_bits_and_others_what_16_bit_sums_leave(tmp_path: Path) -> None:
    fp32 = swish(tmp_path / "fp32.onnx")
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table_for(fp32))
    arrays = arrays_of(tmp_path / "cpu.onnx")
    assert (np.abs(arrays["w2_quantized"].astype(int)).reshape(16, -1).max(axis=1) == 127).all()
    rows = arrays["w3_quantized"].astype(int).reshape(16, -1)
    assert (np.abs(rows[:, 1:] + rows[:, :-1]) <= 128).all()
    assert (np.abs(rows).max(axis=1) > 64).any()


def test_tensorrt_weights_use_all_8_bits_and_biases_are_float(tmp_path: Path) -> None:
    fp32 = residual(tmp_path / "fp32.onnx")
    quantize_tensorrt(fp32, tmp_path / "trt.onnx", table_for(fp32))
    arrays = arrays_of(tmp_path / "trt.onnx")
    for name, axis in (("w1", 0), ("w2", 0), ("w3", 0), ("w4", 0), ("w5", 1)):
        integers = np.moveaxis(arrays[f"{name}_quantized"].astype(int), axis, 0)
        assert (np.abs(integers).reshape(len(integers), -1).max(axis=1) == 127).all()
    assert {arrays[name].dtype for name in ("b1", "b2", "b4")} == {np.dtype(np.float32)}
    assert not any(array.dtype in (np.int32, np.uint8) for array in arrays.values())


def test_weights_are_a_quarter_of_their_size(tmp_path: Path) -> None:
    nodes = [node("Gemm", ["image", "w", "b"], "logits")]
    fp32 = model(tmp_path / "fp32.onnx", nodes, {"w": normal(512, 64, seed=1), "b": normal(64, seed=2)}, ["n", 512])
    table = table_for(fp32, inputs=normal(8, 512, seed=0))
    for quantize in (quantize_cpu, quantize_tensorrt):
        quantize(fp32, tmp_path / "int8.onnx", table)
        assert (tmp_path / "int8.onnx").stat().st_size < fp32.stat().st_size * 0.27


@pytest.mark.parametrize(("precision", "kind", "size"), [("fp32", np.float32, 4), ("fp16", np.float16, 2)])
def test_a_kept_layer_of_the_cpu_file_is_float(tmp_path: Path, precision: Keep, kind: type, size: int) -> None:
    fp32 = residual(tmp_path / "fp32.onnx")
    table = table_for(fp32)
    quantize_cpu(fp32, tmp_path / "all.onnx", table)
    quantize_cpu(fp32, tmp_path / "kept.onnx", table, keep={"c2": precision})
    arrays = arrays_of(tmp_path / "kept.onnx")
    assert arrays["w2" if precision == "fp32" else "w2_half"].dtype == kind
    assert "w2_quantized" not in arrays
    stored = sum(each.nbytes for name, each in arrays.items() if name in ("w1", "w2", "w1_half", "w2_half"))
    assert stored == (16 * 16 * 9 + 16 * 3 * 9) * size  # the convolution before it, too
    found = computed(tmp_path / "kept.onnx")
    assert found["QLinearConv"] == 1
    assert found["Conv"] + found["FusedConv"] == 2
    assert found["Cast"] == 0  # done once, at load
    assert db(fp32, tmp_path / "kept.onnx") > db(fp32, tmp_path / "all.onnx")


def test_a_tensor_with_a_bad_range_is_healed_by_keeping_its_reader(tmp_path: Path) -> None:
    fp32 = residual(tmp_path / "fp32.onnx")
    table = table_for(fp32)
    spoilt = Table(table.method, {**table.ranges, "r2": type(table.ranges["r2"])(0.0, 0.05)}, table.rows)
    for quantize, literal in ((quantize_cpu, False), (quantize_tensorrt, True)):
        quantize(fp32, tmp_path / "bad.onnx", spoilt)
        quantize(fp32, tmp_path / "healed.onnx", spoilt, keep={"c3": "fp16"})
        assert db(fp32, tmp_path / "bad.onnx", literal=literal) < 15
        assert db(fp32, tmp_path / "healed.onnx", literal=literal) > 24


def test_a_kept_half_layer_of_the_tensorrt_file_computes_between_casts(tmp_path: Path) -> None:
    fp32 = residual(tmp_path / "fp32.onnx")
    quantize_tensorrt(fp32, tmp_path / "trt.onnx", table_for(fp32), keep={"c2": "fp16", "r2": "fp16", "c3": "fp32"})
    made = onnx.load(str(tmp_path / "trt.onnx"))
    onnx.checker.check_model(made, full_check=True)
    makers = {name: each for each in made.graph.node for name in each.output}
    layer = next(each for each in made.graph.node if each.name == "c2")
    assert makers[layer.input[0]].op_type == "Cast"
    assert arrays_of(tmp_path / "trt.onnx")[layer.input[1]].dtype == np.float16
    kept = next(each for each in made.graph.node if each.name == "c3")
    assert arrays_of(tmp_path / "trt.onnx")[kept.input[1]].dtype == np.float32
    assert makers[kept.input[0]].op_type == "Cast"
    assert lint(made) == []
    assert db(fp32, tmp_path / "trt.onnx", literal=True) > 24


@pytest.mark.parametrize("quantize", [quantize_cpu, quantize_tensorrt])
def test_outputs_on_the_way_keep_their_names(tmp_path: Path, quantize: Callable[..., None]) -> None:
    """A tensor that is an output and read by another layer: rounded for that one, or for both."""
    fp32 = residual(tmp_path / "fp32.onnx")
    opened = onnx.load(str(fp32))
    for name, shape in (("r3", ["n", 16, 12, 12]), ("h", ["n", 24])):
        opened.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    fp32.write_bytes(opened.SerializeToString())
    ends = Ends("image", ("logits", "r3", "h"))
    quantize(fp32, tmp_path / "int8.onnx", table_for(fp32))
    wanted, got = (all_outputs_of(path, pictures(4), ends, literal=True) for path in (fp32, tmp_path / "int8.onnx"))
    for name in ends.outputs:
        assert sqnr_db(wanted[name], got[name]) > 24


def test_a_weight_that_two_layers_share_is_stored_once(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["image", "w"], "c1", pads=[1, 1, 1, 1]),
        node("Conv", ["c1", "w"], "c2", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c2"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "m"], "logits"),
    ]
    constants: dict[str, Array] = {"w": normal(3, 3, 3, 3, seed=1) / 3, "m": normal(3, 4, seed=2)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 3, 12, 12])
    for quantize in (quantize_cpu, quantize_tensorrt):
        quantize(fp32, tmp_path / "int8.onnx", table_for(fp32))
        assert [name for name in arrays_of(tmp_path / "int8.onnx") if name.startswith("w")].count("w_quantized") == 1
        assert db(fp32, tmp_path / "int8.onnx", literal=True) > 24


def test_layers_that_share_a_bias_each_have_it_in_their_own_steps(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["image", "w", "b"], "c1", pads=[1, 1, 1, 1]),
        node("Conv", ["c1", "v", "b"], "c2", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c2"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "m"], "logits"),
    ]
    constants: dict[str, Array] = {
        "w": normal(3, 3, 3, 3, seed=1),
        "v": normal(3, 3, 3, 3, seed=3),
        "b": normal(3, seed=4) * 5,
    }
    fp32 = model(tmp_path / "fp32.onnx", nodes, {**constants, "m": normal(3, 4, seed=2)}, ["n", 3, 12, 12])
    quantize_cpu(fp32, tmp_path / "int8.onnx", table_for(fp32))
    assert db(fp32, tmp_path / "int8.onnx") > 24


def test_a_channel_without_weights_keeps_its_bias(tmp_path: Path) -> None:
    """A scale of 1, as the stock quantizer gives it, would round the bias to whole steps of the input."""
    weight = normal(4, 3, 1, 1, seed=1)
    weight[2] = 0
    nodes = [
        node("Conv", ["image", "w", "b"], "c1"),
        node("GlobalAveragePool", ["c1"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "m"], "logits"),
    ]
    constants = {"w": weight, "b": np.array([0.1, 0.2, 0.3217, 0.4], np.float32), "m": normal(4, 4, seed=2)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 3, 12, 12])
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table_for(fp32, inputs=pictures() * 100))
    arrays = arrays_of(tmp_path / "cpu.onnx")
    kept = arrays["b_quantized"].astype(np.float64) * arrays["b_scale"]
    assert kept[2] == pytest.approx(0.3217, abs=1e-4)


def test_attention_is_quantized_for_both(tmp_path: Path) -> None:
    """Two activations multiplied: neither is a weight."""
    nodes = [
        node("MatMul", ["image", "q"], "queries"),
        node("MatMul", ["image", "k"], "keys"),
        node("Transpose", ["keys"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["queries", "turned"], "scores"),
        node("Softmax", ["scores"], "shares", axis=-1),
        node("MatMul", ["shares", "image"], "logits"),
    ]
    constants = {"q": weight_of(16, 8, 1), "k": weight_of(16, 8, 2)}
    fp32 = model(tmp_path / "fp32.onnx", nodes, constants, ["n", 10, 16])
    inputs = normal(16, 10, 16, seed=0)
    table = table_for(fp32, inputs=inputs)
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table)
    quantize_tensorrt(fp32, tmp_path / "trt.onnx", table)
    found = computed(tmp_path / "cpu.onnx")
    assert (found["QLinearMatMul"], found["MatMulIntegerToFloat"], found["MatMul"]) == (2, 2, 0)
    wanted = outputs_of(fp32, inputs, ENDS)
    for name in ("cpu", "trt"):
        assert sqnr_db(wanted, outputs_of(tmp_path / f"{name}.onnx", inputs, ENDS, literal=True)) > 24


def gated(path: Path) -> Path:
    nodes = [
        node("Conv", ["image", "w"], "c1", pads=[1, 1, 1, 1]),
        node("HardSigmoid", ["c1"], "s1", alpha=1 / 6, beta=0.5),
        node("Mul", ["c1", "s1"], "m1"),
        node("Conv", ["m1", "v"], "c2"),
        node("GlobalAveragePool", ["c2"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "m"], "logits"),
    ]
    constants: dict[str, Array] = {"w": normal(8, 3, 3, 3, seed=1) / 3, "v": normal(8, 8, 1, 1, seed=2) / 3}
    return model(path, nodes, {**constants, "m": normal(8, 5, seed=3)}, ["n", 3, 12, 12])


def test_a_hard_swish_is_computed_in_integers(tmp_path: Path) -> None:
    fp32 = gated(tmp_path / "fp32.onnx")
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table_for(fp32))
    found = computed(tmp_path / "cpu.onnx")
    assert (found["QLinearConv"], found["QLinearMul"], found["HardSigmoid"], found["Clip"]) == (3, 1, 0, 0)
    assert db(fp32, tmp_path / "cpu.onnx") > 24
    quantize_cpu(fp32, tmp_path / "kept.onnx", table_for(fp32), keep={"s1": "fp32"})
    assert computed(tmp_path / "kept.onnx")["QLinearConv"] == 1
    assert db(fp32, tmp_path / "kept.onnx") > db(fp32, tmp_path / "cpu.onnx")


def test_a_hard_sigmoid_that_answers_stays_float(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["image", "w"], "c1", pads=[1, 1, 1, 1]),
        node("HardSigmoid", ["c1"], "logits"),
    ]
    fp32 = model(tmp_path / "fp32.onnx", nodes, {"w": normal(8, 3, 3, 3, seed=1) / 3}, ["n", 3, 12, 12])
    quantize_cpu(fp32, tmp_path / "cpu.onnx", table_for(fp32))
    assert computed(tmp_path / "cpu.onnx")["HardSigmoid"] == 1


def weight_of(rows: int, columns: int, seed: int) -> Array:
    return normal(rows, columns, seed=seed) / 4


def test_what_nothing_was_quantized_in_is_refused(tmp_path: Path) -> None:
    fp32 = model(tmp_path / "neg.onnx", [node("Neg", ["image"], "logits")], {}, ["n", 4])
    for quantize in (quantize_cpu, quantize_tensorrt):
        with pytest.raises(CompileError, match="changed nothing: none of Neg was quantized"):
            quantize(fp32, tmp_path / "int8.onnx", Table("minmax", {}, 1))
    fp32 = residual(tmp_path / "fp32.onnx")
    kept: dict[str, Keep] = dict.fromkeys(("c1", "c2", "c3", "h", "logits"), "fp32")
    with pytest.raises(CompileError, match="every layer is kept"):
        quantize_cpu(fp32, tmp_path / "int8.onnx", table_for(fp32), keep=kept)


def test_a_name_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    fp32 = residual(tmp_path / "fp32.onnx")
    with pytest.raises(CompileError, match="no node 'conv_7' to keep"):
        quantize_tensorrt(fp32, tmp_path / "int8.onnx", table_for(fp32), keep={"conv_7": "fp16"})
