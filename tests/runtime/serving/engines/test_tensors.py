"""Arrays from bytes and JSON values: what fits comes through unchanged, what does not is named."""

from __future__ import annotations

from typing import Any

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
    read = tensors.from_bytes("x", datatype, array.shape, bytes(tensors.to_bytes(array)))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(st.data(), st.sampled_from(NUMERIC))
def test_finite_numbers_survive_json(data: st.DataObject, datatype: str) -> None:
    elements = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else None
    array: npt.NDArray[Any] = data.draw(
        arrays.arrays(tensors.NUMPY[datatype], arrays.array_shapes(max_dims=3, max_side=4), elements=elements)
    )
    np.testing.assert_array_equal(tensors.from_values("x", datatype, array.shape, tensors.to_values("x", array)), array)
    np.testing.assert_array_equal(tensors.from_values("x", datatype, array.shape, array.tolist()), array)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=6))
def test_text_survives_both_forms(items: list[str]) -> None:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    assert tensors.from_bytes("x", "BYTES", array.shape, tensors.to_bytes(array)).tolist() == items
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


def test_a_dtype_without_a_name_is_a_defect() -> None:
    with pytest.raises(TypeError, match="complex"):
        tensors.datatype_of(np.zeros(1, np.complex64))
