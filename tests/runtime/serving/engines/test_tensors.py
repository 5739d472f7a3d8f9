"""Arrays from bytes and JSON values: what fits comes through unchanged, what does not is named."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.errors import FoothillError
from contracts.manifest import TensorSpec
from runtime.serving.engines import tensors

NUMERIC = [name for name in tensors.NUMPY if name != "BYTES"]


def held(array: npt.NDArray[Any], datatype: str) -> npt.NDArray[Any]:
    """The nearest that the datatype can hold."""
    return tensors.unpacked_bf16(tensors.packed_bf16(array)) if datatype == "BF16" else array


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(st.data(), st.sampled_from(NUMERIC))
def test_numbers_survive_the_binary_form(data: st.DataObject, datatype: str) -> None:
    array: npt.NDArray[Any] = data.draw(
        arrays.arrays(tensors.NUMPY[datatype], arrays.array_shapes(max_dims=3, max_side=4))
    )
    array = held(array, datatype)
    read = tensors.from_bytes("x", datatype, array.shape, bytes(tensors.to_bytes(array, datatype)))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(st.data(), st.sampled_from(NUMERIC))
def test_finite_numbers_survive_json(data: st.DataObject, datatype: str) -> None:
    bounds = {"min_value": -(2.0**127), "max_value": 2.0**127} if datatype == "BF16" else {}
    elements = {"allow_nan": False, "allow_infinity": False, **bounds} if "F" in datatype else None
    array: npt.NDArray[Any] = data.draw(
        arrays.arrays(tensors.NUMPY[datatype], arrays.array_shapes(max_dims=3, max_side=4), elements=elements)
    )
    array = held(array, datatype)
    np.testing.assert_array_equal(tensors.from_values("x", datatype, array.shape, tensors.to_values("x", array)), array)
    np.testing.assert_array_equal(tensors.from_values("x", datatype, array.shape, array.tolist()), array)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=6))
def test_text_survives_both_forms(items: list[str]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    assert tensors.from_bytes("x", "BYTES", array.shape, tensors.to_bytes(array, "BYTES")).tolist() == items
    assert tensors.from_values("x", "BYTES", array.shape, tensors.to_values("x", array)).tolist() == items


@given(st.sampled_from(list(tensors.NUMPY)), st.lists(st.integers(0, 5), max_size=4), VALUES)
def test_any_json_value_is_read_or_refused(datatype: str, shape: list[int], values: object) -> None:
    try:
        read = tensors.from_values("x", datatype, shape, values)
    except FoothillError as error:
        refused = error.code
        assert refused == "bad_tensor"
    else:
        assert list(read.shape) == shape


@given(st.sampled_from(list(tensors.NUMPY)), st.lists(st.integers(0, 5), max_size=4), st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        read = tensors.from_bytes("x", datatype, shape, data)
    except FoothillError as error:
        refused = error.code
        assert refused == "bad_tensor"
    else:
        assert list(read.shape) == shape


@pytest.mark.parametrize(
    ("datatype", "values", "says"),
    [
        ("UINT8", [256], "out of range"),
        ("BF16", [3.4e38], "numbers that fit bfloat16"),
        ("BF16", [1e39], "out of range"),
        ("UINT8", [-1], "out of range"),
        ("INT64", [2**63], "out of range"),
        ("FP16", [70_000.0], "out of range"),
        ("FP32", [10**400], "out of range"),
        ("INT8", [1.0], "expected integers"),
        ("INT8", [True], "expected integers"),
        ("FP32", [True], "expected numbers"),
        ("BOOL", [1], "expected true or false"),
        ("BYTES", [1], "expected strings"),
        ("FP32", [None], "expected numbers"),
        ("FP32", {"a": 1}, "no data"),
    ],
)
def test_values_are_not_bent_to_fit(datatype: str, values: object, says: str) -> None:
    with pytest.raises(FoothillError, match=f"Tensor 'x': .*{says}"):
        tensors.from_values("x", datatype, [1], values)


def test_what_json_cannot_carry_is_refused_with_a_way_out() -> None:
    with pytest.raises(FoothillError, match="ask for binary_data"):
        tensors.to_values("y", np.array([np.nan], np.float32))


def test_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(FoothillError, match="UTF-8"):
        tensors.from_bytes("x", "BYTES", [1], b"\x01\x00\x00\x00\xff")


@pytest.mark.parametrize(
    ("shape", "given_shape", "says"),
    [
        ((-1, 3), (2, 3), None),
        ((-1, 3), (4, 3), None),
        ((-1, 3), (5, 3), "at most 4 rows, got 5"),
        ((-1, 3), (0, 3), r"got shape \[0,3\]"),
        ((-1, 3), (2, 4), r"expected shape \[batch,3\], got shape \[2,4\]"),
        ((-1, 3), (3,), r"got shape \[3\]"),
        ((2, -1), (2, 9), None),
        ((2, -1), (3, 9), "got shape"),
    ],
)
def test_shapes_are_held_to_the_manifest(
    shape: tuple[int, ...], given_shape: tuple[int, ...], says: str | None
) -> None:
    spec = TensorSpec("x", "FP32", shape)
    if says is None:
        tensors.check_shape("x", given_shape, spec, 4)
    else:
        with pytest.raises(FoothillError, match=says):
            tensors.check_shape("x", given_shape, spec, 4)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=2, max_side=8)))
def test_numbers_are_rounded_to_bfloat16_as_others_do(array: npt.NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = array.astype(ml_dtypes.bfloat16)
    packed = tensors.packed_bf16(array)
    assert packed.shape == array.shape
    nan = np.isnan(array)
    np.testing.assert_array_equal(packed[~nan], wanted.view(np.uint16)[~nan])
    assert np.isnan(tensors.unpacked_bf16(packed)[nan]).all()


@given(arrays.arrays(np.uint16, 16))
def test_every_number_of_bfloat16_is_held(bits: npt.NDArray[np.uint16]) -> None:
    numbers = tensors.unpacked_bf16(bits)
    np.testing.assert_array_equal(numbers, bits.view(ml_dtypes.bfloat16).astype(np.float32))
    packed = tensors.packed_bf16(numbers)
    quiet = np.isnan(numbers) * np.uint16(0x40)
    np.testing.assert_array_equal(packed, bits | quiet)
