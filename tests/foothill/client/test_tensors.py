"""Tensors of the client: what is sent can be read, whatever the datatype; what does not fit is refused."""

from __future__ import annotations

import struct

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contracts.oip import ITEM_BYTES, BinarySize, InferResponse, OutputTensor, frame, parse_request
from foothill.client.tensors import Tensor, as_tensor, decode_answer, encode_request

_DTYPES = ["?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"]
_ARRAYS = st.sampled_from(_DTYPES).flatmap(lambda code: hnp.arrays(np.dtype(code), hnp.array_shapes(max_dims=4)))


@given(_ARRAYS)
def test_an_array_survives_the_way_there_and_back(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    tensor = as_tensor(array)
    back = tensor.numpy()
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()
    assert back.shape == array.shape
    np.testing.assert_array_equal(np.array(tensor.values(), array.dtype), array.ravel())


def test_every_datatype_of_the_protocol_has_a_numpy_form() -> None:
    for name, size in ITEM_BYTES.items():
        tensor = Tensor(name, (3,), bytes(3 * size))
        assert tensor.numpy().shape == (3,)
        assert len(tensor.values()) == 3


def test_bfloat16_is_float32_to_numpy_and_goes_as_it_is() -> None:
    numbers = np.array([[1.5, -0.0], [3e38, np.inf]], ml_dtypes.bfloat16)
    tensor = as_tensor(numbers)
    assert (tensor.datatype, tensor.shape, len(tensor.data)) == ("BF16", (2, 2), 8)
    assert tensor.numpy().dtype == np.float32
    np.testing.assert_array_equal(tensor.numpy(), numbers.astype(np.float32))
    np.testing.assert_array_equal(tensor.values(), numbers.astype(np.float32).ravel())
    told = InferResponse("m", "1", (OutputTensor("x", "BF16", (3,), data=[1.5, -0.5, float(numbers[1, 0])]),))
    assert decode_answer(msgspec.json.encode(told), None)["x"].values() == (1.5, -0.5, float(numbers[1, 0]))


def test_big_endian_and_strided_arrays_are_sent_as_the_protocol_wants_them() -> None:
    grid = np.arange(6, dtype=">f4").reshape(2, 3).T
    tensor = as_tensor(grid)
    assert tensor.values() == (0.0, 3.0, 1.0, 4.0, 2.0, 5.0)


def test_the_server_reads_what_the_client_sends() -> None:
    body, length = encode_request({"image": np.ones((1, 2), np.float32), "flag": ("UINT8", [1], b"\x07")}, [])
    request, parts = parse_request(body, str(length))
    assert [(one.name, one.shape, one.datatype) for one in request.inputs] == [
        ("image", (1, 2), "FP32"),
        ("flag", (1,), "UINT8"),
    ]
    assert bytes(parts["flag"]) == b"\x07"
    assert request.parameters.binary_data_output


def test_answers_may_mix_binary_and_json_outputs() -> None:
    head = InferResponse(
        "digits",
        "1",
        (
            OutputTensor("logits", "FP32", (1, 2), BinarySize(8)),
            OutputTensor("labels", "BYTES", (2,), data=["a", "bc"]),
            OutputTensor("nested", "INT32", (2, 2), data=[[1, 2], [3, 4]]),
        ),
    )
    body, length = frame(head, [struct.pack("<2f", 0.5, 1.5)])
    outputs = decode_answer(body, str(length))
    assert outputs["logits"].values() == (0.5, 1.5)
    assert outputs["labels"].values() == (b"a", b"bc")
    assert outputs["nested"].values() == (1, 2, 3, 4)


def test_an_answer_of_json_alone_is_read() -> None:
    head = InferResponse("digits", "1", (OutputTensor("logits", "FP16", (2,), data=[1, 2.5]),))
    assert decode_answer(msgspec.json.encode(head), None)["logits"].values() == (1.0, 2.5)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"{}", None),
        (b"not json", None),
        (b"{}", "9"),
        (b'{"model_name":"d","model_version":"1","outputs":[]}tail', "50"),
        (b'{"model_name":"d","model_version":"1","outputs":[]}', "x"),
        (
            b'{"model_name":"d","model_version":"1","outputs":[{"name":"o","datatype":"FP99","shape":[1],"data":[1]}]}',
            None,
        ),
        (
            b'{"model_name":"d","model_version":"1","outputs":[{"name":"o","datatype":"INT8","shape":[1],"data":[1e9]}]}',
            None,
        ),
    ],
)
def test_an_answer_out_of_form_is_a_value_error(body: bytes, length: str | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- its messages come from several libraries
        decode_answer(body, length)


def test_inputs_that_are_no_tensors_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"FP32 \[2\] takes 8 bytes, not 4"):
        as_tensor(("FP32", [2], b"\0\0\0\0"))
    with pytest.raises(ValueError, match="no datatype"):
        as_tensor(("FP31", [1], b"\0\0\0\0"))
    with pytest.raises(ValueError, match="cannot be sent"):
        as_tensor(np.array(["a"], dtype=object))
    with pytest.raises(ValueError, match="no numpy form"):
        Tensor("BYTES", (1,), b"\1\0\0\0a").numpy()
