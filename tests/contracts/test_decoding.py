from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.decoding import UNREADABLE
from contracts.errors import ErrorBody
from contracts.messages import Audit

JSON = b'{"code":"c","message":"m","source":"s","retryable":false,"request_id":"r"}'


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", JSON.replace(b'"m"', b'"\xff"'), b"[" * 100_000, JSON[:-1] + b',"x":' + b"[" * 100_000]
)
def test_whatever_is_no_message_raises_one_of_these(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(data, type=ErrorBody)


@given(st.binary(max_size=200), st.integers(0, len(JSON)), st.integers(0, len(JSON)))
def test_no_bytes_raise_anything_else(noise: bytes, start: int, end: int) -> None:
    with suppress(*UNREADABLE):
        msgspec.json.decode(JSON[:start] + noise + JSON[end:], type=ErrorBody)
    with suppress(*UNREADABLE):
        msgspec.msgpack.decode(noise, type=Audit)
