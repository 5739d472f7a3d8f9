"""The Open Inference Protocol in plain HTTP, right and wrong. What tritonclient asks is in test_oip_table.py."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from runtime.serving.models.hosting import ModelHost
from tests.runtime.serving.bundle_factory import NUMERIC, make_echo, make_lookup
from tests.runtime.serving.conftest import Load, Serve


@pytest.fixture
async def url(host: ModelHost, load: Load, serve: Serve) -> str:
    await host.activate("digits", load())
    await host.activate("echo", load(make_echo, datatypes=(*NUMERIC, "BYTES")))
    await host.activate("lookup", load(make_lookup))
    return await serve()


def infer_json(data: Any, shape: list[int] | None = None, datatype: str = "FP32", **more: Any) -> bytes:
    given = {"name": "image", "shape": shape or [1, 1, 8, 8], "datatype": datatype, "data": data}
    return json.dumps({"inputs": [given], **more}).encode()


FLAT = [0.0] * 64
NESTED = [[[[0.0] * 8] * 8]]
HEAD = json.dumps(
    {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "parameters": {"binary_data_size": 256}}]}
).encode()
BOTH = HEAD.replace(b'"FP32"', b'"FP32", "data": [0]')
NONE = HEAD.replace(b"256", b"0")
INFER = "/v2/models/digits/infer"
LENGTH = "Inference-Header-Content-Length"

RAW: list[tuple[str, str, str, bytes, dict[str, str], int, str]] = [
    ("flat data", "POST", INFER, infer_json(FLAT), {}, 200, "logits"),
    ("nested data", "POST", INFER, infer_json(NESTED), {}, 200, "logits"),
    ("integers for floats", "POST", INFER, infer_json([0] * 64), {}, 200, "logits"),
    ("unknown fields", "POST", INFER, infer_json(FLAT, parameters={"mine": 1}, more=2), {}, 200, "logits"),
    ("version in the path", "POST", "/v2/models/digits/versions/1/infer", infer_json(FLAT), {}, 200, "logits"),
    ("binary", "POST", INFER, HEAD + bytes(256), {LENGTH: str(len(HEAD))}, 200, "logits"),
    ("gzip", "POST", INFER, gzip.compress(infer_json(FLAT)), {"Content-Encoding": "gzip"}, 200, "logits"),
    ("broken gzip", "POST", INFER, infer_json(FLAT), {"Content-Encoding": "gzip"}, 400, "encoded wrongly"),
    ("too few values", "POST", INFER, infer_json([0.0] * 63), {}, 400, "expected 64 values"),
    ("strings for floats", "POST", INFER, infer_json(["0"] * 64), {}, 400, "expected numbers"),
    ("ragged", "POST", INFER, infer_json([[0.0] * 63, 1.0]), {}, 400, "'image'"),
    ("a number too large", "POST", INFER, infer_json([1e300] * 64), {}, 400, "out of range"),
    ("no data", "POST", INFER, infer_json(None), {}, 400, "no data"),
    ("negative shape", "POST", INFER, infer_json(FLAT, [-1, 1, 8, 8]), {}, 400, "no inference request"),
    ("vast shape", "POST", INFER, infer_json(FLAT, [2**40, 2**40, 8, 8]), {}, 400, "shape"),
    ("bfloat16", "POST", INFER, infer_json(FLAT, None, "BF16"), {}, 400, "datatype FP32, got datatype 'BF16'"),
    ("not a number", "POST", INFER, infer_json([float("nan")] * 64), {}, 400, "no inference request"),
    ("infinity", "POST", INFER, infer_json([float("inf")] * 64), {}, 400, "no inference request"),
    ("nested without end", "POST", INFER, b'{"inputs":' + b"[" * 100_000, {}, 400, "no inference request"),
    ("data nested too deep", "POST", INFER, infer_json([[[[[[[[[[0.0] * 64]]]]]]]]]), {}, 400, "'image'"),
    ("data and binary", "POST", INFER, BOTH + bytes(256), {LENGTH: str(len(BOTH))}, 400, "data or binary_data_size"),
    ("an output twice", "POST", INFER, infer_json(FLAT, outputs=[{"name": "logits"}] * 2), {}, 400, "asked for twice"),
    ("an id that is no text", "POST", INFER, infer_json(FLAT, id=7), {}, 400, "id"),
    ("too many inputs", "POST", INFER, b'{"inputs":[' + b"{}," * 300 + b"{}]}", {}, 400, "no inference request"),
    ("length of nothing", "POST", INFER, HEAD + bytes(256), {LENGTH: "0"}, 400, "is 0, but"),
    ("length in the JSON", "POST", INFER, HEAD + bytes(256), {LENGTH: str(len(HEAD) - 1)}, 400, "no inference"),
    ("negative length", "POST", INFER, HEAD + bytes(256), {LENGTH: "-1"}, 400, "not a number"),
    ("a size of nothing", "POST", INFER, NONE, {LENGTH: str(len(NONE))}, 400, "got 0"),
    ("unknown encoding", "POST", INFER, infer_json(FLAT), {"Content-Encoding": "br"}, 400, "encoded wrongly"),
    ("generate", "POST", "/v2/models/digits/generate", b"{}", {}, 404, "generate extension"),
    ("load without a token", "POST", "/v2/repository/models/digits/load", b"{}", {}, 403, "admin token"),
    ("unknown datatype", "POST", INFER, infer_json(FLAT, None, "FP31"), {}, 400, "datatype FP32"),
    ("no inputs", "POST", INFER, b'{"inputs": []}', {}, 400, "got none"),
    ("no json", "POST", INFER, b"\x00\x01garbage", {}, 400, "no inference request"),
    ("empty", "POST", INFER, b"", {}, 400, "no inference request"),
    ("truncated binary", "POST", INFER, HEAD + bytes(255), {LENGTH: str(len(HEAD))}, 400, "256 binary bytes, got 255"),
    ("binary left over", "POST", INFER, HEAD + bytes(257), {LENGTH: str(len(HEAD))}, 400, "1 bytes after"),
    ("length too large", "POST", INFER, HEAD, {LENGTH: "99999"}, 400, "but the body has"),
    ("length no number", "POST", INFER, HEAD, {LENGTH: "x"}, 400, "not a number"),
    ("length of many digits", "POST", INFER, HEAD, {LENGTH: "9" * 5000}, 400, "not a number"),
    ("bad deadline", "POST", INFER, infer_json(FLAT), {"Foothill-Deadline-Ms": "soon"}, 400, "Foothill-Deadline-Ms"),
    ("server metadata", "GET", "/v2", b"", {}, 200, "binary_tensor_data"),
    ("server metadata as OpenAPI has it", "GET", "/v2/", b"", {}, 200, "binary_tensor_data"),
    ("wrong method", "GET", INFER, b"", {}, 405, "Method Not Allowed"),
    ("unknown route", "GET", "/v2/nothing", b"", {}, 404, "docs/api.md"),
    ("bad index question", "POST", "/v2/repository/index", b"[]", {}, 400, "neither empty"),
    ("index of the ready", "POST", "/v2/repository/index", b'{"ready":true}', {}, 200, "digits"),
    ("odd model name", "GET", "/v2/models/%FF%00%22", b"", {}, 404, "not served"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "sent", "status", "says"), [case[1:] for case in RAW], ids=[case[0] for case in RAW]
)
async def test_plain_http_is_answered_in_form(
    url: str, method: str, path: str, body: bytes, sent: dict[str, str], status: int, says: str
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url + path, data=body, headers=sent) as answer,
    ):
        content = await answer.text()
    assert (answer.status, says in content) == (status, True), content
    assert answer.headers["Foothill-Request-Id"]
    assert answer.headers["Foothill-Node"] == "fra-1"
    if status >= 400:
        told = json.loads(content)
        assert set(told) == {"error", "code", "message", "source", "retryable", "request_id"}
        assert told["error"] == told["message"]
        assert told["source"] == "fra-1"
        assert told["request_id"] == answer.headers["Foothill-Request-Id"]


async def test_a_small_body_that_comes_in_pieces_is_read_whole(url: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"re', b'ady":', b"true}"):
            yield piece
            await asyncio.sleep(0.05)

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v2/repository/index", data=pieces()) as answer,
    ):
        assert (answer.status, "digits" in await answer.text()) == (200, True)


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100):
        yield body[at : at + 100]


@pytest.mark.parametrize("expect", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_may_come_in_chunks_and_after_a_word_that_it_is_expected(
    url: str, expect: bool, chunked: bool
) -> None:
    body = HEAD + bytes(256)
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            url + INFER,
            data=chunks(body) if chunked else body,
            headers={LENGTH: str(len(HEAD))},
            expect100=expect,
        ) as answer,
    ):
        assert (answer.status, "logits" in await answer.text()) == (200, True)
