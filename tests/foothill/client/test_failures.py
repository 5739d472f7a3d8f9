from __future__ import annotations

import pytest

from foothill.client.failures import RequestError, read_failure, reading


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"code": "\xff"}', b'{"code": ' + b"[" * 100_000])
def test_an_error_of_a_stranger_is_quoted_whatever_its_bytes(body: bytes) -> None:
    error = read_failure(502, {}, body, url="http://a:1", request_id="r1")
    assert (error.code, error.status, error.retryable, error.request_id) == ("upstream_failed", 502, True, "r1")
    assert "http://a:1 answered HTTP 502" in error.message


@pytest.mark.parametrize(
    "raised", [ValueError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), RecursionError("x")]
)
def test_an_answer_that_cannot_be_read_is_the_clients_own_error(raised: Exception) -> None:
    with pytest.raises(RequestError, match="cannot be read"), reading("r1"):
        raise raised
