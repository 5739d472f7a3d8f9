"""The framing of the binary tensor extension, and the bodies that are refused."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import oip
from contracts.errors import ErrorBody, FoothillError


def refusal(read: Callable[[], object]) -> FoothillError | None:
    try:
        read()
    except FoothillError as error:
        return error
    return None


def request_of(*sizes: int) -> oip.InferRequest:
    return oip.InferRequest(
        tuple(
            oip.InputTensor(f"x{index}", (size,), "UINT8", oip.InputParameters(binary_data_size=size))
            for index, size in enumerate(sizes)
        )
    )


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_tensors_come_back_from_a_frame_as_they_went_in(parts: list[bytes]) -> None:
    body, length = oip.frame(request_of(*map(len, parts)), parts)
    request, found = oip.parse_request(body, str(length))
    assert [bytes(found[tensor.name]) for tensor in request.inputs] == parts


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=8), st.integers(-5, 300).map(str)))
def test_any_body_is_read_or_refused_with_the_contracts_error(body: bytes, length: str | None) -> None:
    refused = refusal(lambda: oip.parse_request(body, length))
    assert refused is None or refused.status == 400


@given(st.binary(max_size=200))
def test_any_messagepack_body_is_read_or_refused_with_the_contracts_error(body: bytes) -> None:
    refused = refusal(lambda: oip.parse_packed(body))
    assert refused is None or refused.code == "bad_request"


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_byte_strings_come_back_as_they_went_in(items: list[bytes]) -> None:
    assert oip.split_bytes(oip.join_bytes(items), len(items), "x") == items


@given(st.binary(max_size=100), st.integers(0, 10))
def test_any_bytes_tensor_is_read_or_refused(data: bytes, count: int) -> None:
    refused = refusal(lambda: oip.split_bytes(data, count, "x"))
    assert refused is None or "'x'" in refused.message


@pytest.mark.parametrize(
    ("sizes", "sent", "says"),
    [
        ((4,), b"123", "expected 4 binary bytes, got 3"),
        ((4,), b"12345", "1 bytes after its tensors"),
        ((2, 3), b"1234", "'x1': expected 3 binary bytes, got 2"),
    ],
)
def test_sizes_that_do_not_add_up_are_named(sizes: tuple[int, ...], sent: bytes, says: str) -> None:
    body, length = oip.frame(request_of(*sizes), [sent])
    with pytest.raises(FoothillError, match=says):
        oip.parse_request(body, str(length))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"inputs": 1}',
        b'{"inputs": [{}]}',
        b"[" * 100_000,
        b'{"inputs": ["\xff"]}',
        b'{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 100_000 + b"}]}",
    ],
)
def test_json_out_of_form_is_refused(body: bytes) -> None:
    with pytest.raises(FoothillError) as refused:
        oip.parse_request(body, None)
    assert refused.value.code == "bad_request"


def test_shared_memory_is_refused_by_name() -> None:
    body = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}'
    with pytest.raises(FoothillError, match="shared memory"):
        oip.parse_request(body, None)


def test_the_error_of_the_protocol_keeps_the_contracts_fields() -> None:
    body = ErrorBody("bad_tensor", "Tensor 'x' is wrong.", "fra-1", False, "abc")
    sent = oip.error_body(body)
    assert msgspec.json.decode(sent, type=ErrorBody) == body
    assert msgspec.json.decode(sent)["error"] == body.message
