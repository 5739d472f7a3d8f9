"""What goes into an ONNX file and comes out of it; files that cannot be compiled are refused with what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from model_compiler.errors import CompileError
from model_compiler.onnx_ends import MAX_ONNX_BYTES, ends_of, fitted, load, tensor_specs
from model_compiler.replay import Ends
from tests.model_compiler.small import NUMBERS, RIGHT, linear

Sizes = Sequence[int | str | None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("good") / "model.onnx"
    return linear(path, {"logits": RIGHT, "boxes": RIGHT}).read_bytes()


def changed(data: bytes, path: Path, change: Callable[[Any], object]) -> Path:
    model = onnx.load_model_from_string(data)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def shaped(data: bytes, path: Path, given: Sizes, *outputs: Sizes, dtype: int = TensorProto.FLOAT) -> Path:
    """The good model under other shapes; nothing here runs it."""

    def change(graph: Any) -> None:
        for value, shape in zip((*graph.input, *graph.output), (given, *outputs), strict=False):
            value.CopyFrom(helper.make_tensor_value_info(value.name, dtype, list(shape)))

    return changed(data, path, change)


@pytest.mark.parametrize(("first", "batch"), [("n", None), (1, 1), (None, None), (0, None)])
def test_the_ends_are_told_with_the_batch_that_the_file_insists_on(
    good: bytes, tmp_path: Path, first: int | str | None, batch: int | None
) -> None:
    path = shaped(good, tmp_path / "m.onnx", [first, NUMBERS], [first, 3], ["n", 3])
    assert ends_of(path) == Ends("numbers", ("logits", "boxes"), batch)
    assert fitted(Ends("x", ("y",), 7), path) == Ends("x", ("y",), batch)


def test_weights_that_are_listed_as_inputs_are_none(good: bytes, tmp_path: Path) -> None:
    """As files of IR 3 have them."""
    weight = helper.make_tensor_value_info("logits.weight", TensorProto.FLOAT, RIGHT.shape)
    path = changed(good, tmp_path / "m.onnx", lambda graph: graph.input.append(weight))
    assert ends_of(path).input == "numbers"


def test_open_sizes_are_minus_1_and_types_have_the_protocols_names() -> None:
    kinds = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "BOOL": "BOOL", "INT64": "INT64", "UINT8": "UINT8"}
    values = [helper.make_tensor_value_info(kind, getattr(TensorProto, kind), ["n", 0, None, 5]) for kind in kinds]
    inputs, outputs = tensor_specs(helper.make_model(helper.make_graph([], "main", values, [])))
    assert [each.datatype for each in inputs] == list(kinds.values())
    assert {each.shape for each in inputs} == {(-1, -1, -1, 5)}
    assert outputs == ()


@pytest.mark.parametrize(
    ("given", "outputs", "told"),
    [
        ([4, NUMBERS], [[4, 3], [4, 3]], r"the first dimension of numbers \[4, 6\] must be the rows of a batch"),
        (["n"], [["n"], ["n"]], r"the first dimension of numbers \[-1\] must be the rows"),
        ([], [["n"], ["n"]], r"the first dimension of numbers \[\] must be the rows"),
        (["n", NUMBERS], [["n", 3], [100, 3]], r"the first dimension of output boxes \[100, 3\] is not that of the"),
        (["n", NUMBERS], [["n", 3], []], r"the first dimension of output boxes \[\] is not"),
    ],
)
def test_what_does_not_take_and_give_rows_is_refused(
    good: bytes, tmp_path: Path, given: Sizes, outputs: Sequence[Sizes], told: str
) -> None:
    with pytest.raises(CompileError, match=told):
        ends_of(shaped(good, tmp_path / "m.onnx", given, *outputs))


MORE = helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 1])


def outside(graph: Any) -> None:
    tensor = graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    tensor.ClearField("raw_data")


def sequenced(graph: Any) -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(tensor))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda graph: graph.input.append(MORE), r"2 inputs \(numbers, more\)"),
        (lambda graph: graph.ClearField("output"), "has no output"),
        (lambda graph: graph.output[0].type.tensor_type.ClearField("shape"), "Field 'shape' of 'type' is required"),
        (lambda graph: setattr(graph.output[0].type.tensor_type, "elem_type", 8), "'logits' is of a kind .*: STRING"),
        (lambda graph: setattr(graph.output[0].type.tensor_type, "elem_type", 99), "'logits' is of a kind .*: 99"),
        (lambda graph: setattr(graph.input[0].type.tensor_type, "elem_type", 10), r"takes FP16\. Export it"),
        (lambda graph: setattr(graph.node[0], "op_type", "Nonsense"), "no whole ONNX file: No Op registered"),
        (sequenced, "'boxes' is a sequence_type. Models of tensors alone"),
        (outside, "keeps weights in other files. Save it as one"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_refused_with_what_is_wrong(
    good: bytes, tmp_path: Path, change: Callable[[Any], object], told: str
) -> None:
    with pytest.raises(CompileError, match=told):
        ends_of(changed(good, tmp_path / "m.onnx", change))


def test_what_is_no_file_or_too_large_a_one_is_refused(good: bytes, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"nowhere\.onnx cannot be read \(No such file"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(CompileError, match=r"cannot be read \(Is a directory\)"):
        load(tmp_path)
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(MAX_ONNX_BYTES + 1)
    with pytest.raises(CompileError, match="2147483649 bytes; an ONNX file has less than 2 GiB"):
        load(huge)


@settings(max_examples=300)
@given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3), length=st.integers(0, 10**6))
def test_a_damaged_file_is_read_or_refused(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(good if length % 2 else good[: length % len(good)])
    for place, value in damage:
        if data:
            data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(data)
    with suppress(CompileError):
        assert ends_of(path).outputs
