"""The one error: each code has a status, and the exception survives every journey."""

from __future__ import annotations

import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import KINDS, ErrorBody, FoothillError

codes = st.sampled_from(sorted(KINDS))


@given(codes, st.text(max_size=50), st.sampled_from(["", "edge-fra"]))
def test_a_body_says_all_of_an_error(code: str, message: str, source: str) -> None:
    error = FoothillError(code, message, source=source)
    body = error.body(source="router", request_id="r1")
    assert body == ErrorBody(code, message, source or "router", KINDS[code].retryable, "r1")
    assert error.status == KINDS[code].status
    assert msgspec.json.decode(msgspec.json.encode(body), type=ErrorBody) == body


@given(codes, st.text(max_size=50), st.one_of(st.none(), st.floats(0, 100)))
def test_an_error_crosses_processes_whole(code: str, message: str, retry_after_s: float | None) -> None:
    error = FoothillError(code, message, source="edge-fra", retry_after_s=retry_after_s)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.message, copy.source, copy.retry_after_s) == (code, message, "edge-fra", retry_after_s)


def test_statuses_are_errors_and_what_is_worth_a_retry_is_the_servers_state() -> None:
    for code, kind in KINDS.items():
        assert 400 <= kind.status < 600, code
        assert not (kind.retryable and kind.status < 429), code


def test_a_code_outside_the_contract_fails_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="'oops' is no code"):
        FoothillError("oops", "…")
