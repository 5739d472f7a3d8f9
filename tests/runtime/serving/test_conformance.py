"""Every route of the Open Inference Protocol with the real tritonclient and with plain HTTP, right and wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from runtime.serving.hosting import ModelHost
from tests.runtime.serving.bundle_factory import NUMERIC, make_echo, make_lookup
from tests.runtime.serving.conftest import Load, Serve

T = TypeVar("T")
Array = npt.NDArray[Any]
Ask = Callable[[Callable[[triton.InferenceServerClient], T]], Awaitable[T]]


@pytest.fixture
async def url(host: ModelHost, load: Load, serve: Serve) -> str:
    await host.activate("digits", load())
    await host.activate("echo", load(make_echo, datatypes=(*NUMERIC, "BYTES")))
    await host.activate("lookup", load(make_lookup))
    return await serve()


@pytest.fixture
def ask(url: str) -> Ask[Any]:
    """Runs a function with a tritonclient in a thread of its own, where its event loop can live."""

    def with_client(question: Callable[[triton.InferenceServerClient], T]) -> T:
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            return question(client)

    async def run(question: Callable[[triton.InferenceServerClient], T]) -> T:
        return await asyncio.to_thread(with_client, question)

    return run


def tensor(name: str, array: Array, *, binary: bool = True, datatype: str | None = None) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    given.set_data_from_numpy(array, binary_data=binary)
    return given


SAMPLES: dict[str, Array] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -65504]], np.float16),
    "FP32": np.array([[0.1, -3e38]], np.float32),
    "FP64": np.array([[0.1, -1e308]], np.float64),
    "BYTES": np.array([["", "zwölf"]], dtype=object),
}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
async def test_every_datatype_comes_back_unchanged(ask: Ask[Any], binary_in: bool, binary_out: bool | None) -> None:
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(f"y_{name}", binary_data=binary_out) for name in SAMPLES]

    def question(client: triton.InferenceServerClient) -> triton.InferResult:
        inputs = [tensor(f"x_{name}", array, binary=binary_in, datatype=name) for name, array in SAMPLES.items()]
        return client.infer("echo", inputs, outputs=outputs, request_id="r-1")

    result = await ask(question)
    assert result.get_response()["id"] == "r-1"
    for name, array in SAMPLES.items():
        got = result.as_numpy(f"y_{name}")
        if name == "BYTES":
            got = np.array([[item if isinstance(item, str) else item.decode() for item in got[0]]], dtype=object)
        np.testing.assert_array_equal(got, array)


async def test_mixed_json_and_binary_outputs_and_a_subset_of_them(ask: Ask[Any]) -> None:
    outputs = [
        triton.InferRequestedOutput("y_INT8", binary_data=False),
        triton.InferRequestedOutput("y_FP32", binary_data=True),
    ]

    def question(client: triton.InferenceServerClient) -> triton.InferResult:
        inputs = [tensor(f"x_{name}", array, datatype=name) for name, array in SAMPLES.items()]
        return client.infer("echo", inputs, outputs=outputs)

    result = await ask(question)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["y_INT8", "y_FP32"]
    np.testing.assert_array_equal(result.as_numpy("y_INT8"), SAMPLES["INT8"])
    np.testing.assert_array_equal(result.as_numpy("y_FP32"), SAMPLES["FP32"])


@pytest.mark.parametrize("binary", [True, False])
async def test_classification_gives_the_best_labels(ask: Ask[Any], binary: bool) -> None:
    def question(client: triton.InferenceServerClient) -> triton.InferResult:
        wanted = triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)
        return client.infer("lookup", [tensor("index", np.array([[2], [0]]))], outputs=[wanted])

    result = await ask(question)
    first = result.as_numpy("logits")[:, 0].tolist()
    assert [item if isinstance(item, str) else item.decode() for item in first] == ["10.000000:2:c", "10.000000:0:a"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_are_read(ask: Ask[Any], algorithm: str) -> None:
    def question(client: triton.InferenceServerClient) -> triton.InferResult:
        return client.infer(
            "lookup",
            [tensor("index", np.array([[1]]))],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )

    assert (await ask(question)).as_numpy("logits").argmax() == 1


async def test_async_requests_of_the_client_all_come_back(ask: Ask[Any]) -> None:
    def question(client: triton.InferenceServerClient) -> list[int]:
        pending = [client.async_infer("lookup", [tensor("index", np.array([[row % 4]]))]) for row in range(20)]
        return [int(one.get_result().as_numpy("logits").argmax()) for one in pending]

    assert await ask(question) == [row % 4 for row in range(20)]


async def test_metadata_routes_answer_the_client(ask: Ask[Any]) -> None:
    def question(client: triton.InferenceServerClient) -> dict[str, Any]:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready("digits"),
            "version_ready": client.is_model_ready("digits", "1"),
            "other_ready": client.is_model_ready("digits", "2"),
            "unknown_ready": client.is_model_ready("unknown"),
            "server": client.get_server_metadata(),
            "model": client.get_model_metadata("digits"),
            "version": client.get_model_metadata("digits", "1"),
            "config": client.get_model_config("digits", "1"),
            "index": client.get_model_repository_index(),
        }

    said = await ask(question)
    assert [said[key] for key in ("live", "ready", "model_ready", "version_ready")] == [True] * 4
    assert [said[key] for key in ("other_ready", "unknown_ready")] == [False] * 2
    assert "binary_tensor_data" in said["server"]["extensions"]
    assert said["model"] == said["version"]
    assert said["model"]["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert said["config"]["max_batch_size"] == 8
    assert said["config"]["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [1, 8, 8]}]
    assert [line["name"] for line in said["index"]] == ["digits", "echo", "lookup"]
    assert {line["state"] for line in said["index"]} == {"READY"}


async def test_statistics_count_rows_requests_and_failures(ask: Ask[Any]) -> None:
    def question(client: triton.InferenceServerClient) -> tuple[dict[str, Any], dict[str, Any]]:
        client.infer("lookup", [tensor("index", np.array([[1], [2]]))])
        with pytest.raises(InferenceServerException):
            client.infer("lookup", [tensor("index", np.array([[99]]))])
        return client.get_inference_statistics("lookup", "1"), client.get_inference_statistics()

    one, every = await ask(question)
    (stats,) = one["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (2, 1)
    assert stats["inference_stats"]["success"]["count"] == 1
    assert stats["inference_stats"]["fail"]["count"] == 1
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert [line["name"] for line in every["model_stats"]] == ["digits", "echo", "lookup"]


IMAGE = np.zeros((1, 1, 8, 8), np.float32)

BAD_INPUTS: list[tuple[str, str, list[tuple[str, Array, str]], str]] = [
    ("unknown model", "nope", [("image", IMAGE, "FP32")], "Model 'nope' is not served here"),
    ("wrong name", "digits", [("picture", IMAGE, "FP32")], "expected 'image', got 'picture'"),
    ("too many", "digits", [("image", IMAGE, "FP32"), ("more", IMAGE, "FP32")], "got 'image', 'more'"),
    ("twice", "digits", [("image", IMAGE, "FP32"), ("image", IMAGE, "FP32")], "given twice"),
    ("wrong datatype", "digits", [("image", IMAGE.astype(np.float64), "FP64")], "datatype FP32, got datatype 'FP64'"),
    ("wrong shape", "digits", [("image", IMAGE[:, :, :7], "FP32")], r"shape \[batch,1,8,8\], got shape \[1,1,7,8\]"),
    ("wrong rank", "digits", [("image", IMAGE[0], "FP32")], r"got shape \[1,8,8\]"),
    ("no rows", "digits", [("image", IMAGE[:0], "FP32")], r"got shape \[0,1,8,8\]"),
    ("too many rows", "digits", [("image", np.repeat(IMAGE, 9, 0), "FP32")], "at most 8 rows, got 9"),
    ("the engine's refusal", "lookup", [("index", np.array([[99]]), "INT64")], "The model refuses"),
]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("model", "given", "says"), [case[1:] for case in BAD_INPUTS], ids=[c[0] for c in BAD_INPUTS])
async def test_the_client_reads_why_a_request_was_refused(
    ask: Ask[Any], binary: bool, model: str, given: list[tuple[str, Array, str]], says: str
) -> None:
    def question(client: triton.InferenceServerClient) -> None:
        client.infer(model, [tensor(name, array, binary=binary, datatype=kind) for name, array, kind in given])

    with pytest.raises(InferenceServerException, match=says):
        await ask(question)


async def test_the_client_reads_why_an_output_was_refused(ask: Ask[Any]) -> None:
    def question(client: triton.InferenceServerClient, **options: Any) -> None:
        client.infer("digits", [tensor("image", IMAGE)], **options)

    wanted = [triton.InferRequestedOutput("nothing")]
    with pytest.raises(InferenceServerException, match="'nothing': expected one of the outputs logits"):
        await ask(lambda client: question(client, outputs=wanted))
    region = triton.InferRequestedOutput("logits")
    region.set_shared_memory("region", 40)
    with pytest.raises(InferenceServerException, match="shared memory is not served"):
        await ask(lambda client: question(client, outputs=[region]))
    with pytest.raises(InferenceServerException, match="served in version 1, not '7'"):
        await ask(lambda client: question(client, model_version="7"))


async def test_load_and_unload_are_closed_to_clients_without_the_admin_token(ask: Ask[Any]) -> None:
    with pytest.raises(InferenceServerException, match="admin token") as refused:
        await ask(lambda client: client.load_model("digits"))
    assert refused.value.status() == "403"
    with pytest.raises(InferenceServerException, match="admin token"):
        await ask(lambda client: client.unload_model("digits"))


def infer_json(data: Any, shape: list[int] | None = None, datatype: str = "FP32", **more: Any) -> bytes:
    given = {"name": "image", "shape": shape or [1, 1, 8, 8], "datatype": datatype, "data": data}
    return json.dumps({"inputs": [given], **more}).encode()


FLAT = [0.0] * 64
NESTED = [[[[0.0] * 8] * 8]]
HEAD = json.dumps(
    {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "parameters": {"binary_data_size": 256}}]}
).encode()
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
