"""The Open Inference Protocol as a table: every call of tritonclient, both of its HTTP clients, JSON and binary, right
and wrong, against a server on a socket. A row says what is called and what must come of it."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
from onnx import helper
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from contracts.manifest import Postprocess, TensorSpec
from runtime.links.bundles.store import BundleStore
from runtime.serving.models.hosting import ModelHost
from runtime.serving.repository import StoredBundles
from tests.runtime.serving import bundle_factory as factory
from tests.runtime.serving.bundle_factory import NUMERIC, make_classifier, make_echo, make_lookup, pack
from tests.runtime.serving.conftest import Serve

Array = npt.NDArray[Any]
Call = Callable[[str, dict[str, Any]], Awaitable[Any]]
Right = Callable[[Any], bool]

ADMIN = {"headers": {"Authorization": "Bearer adm1n"}}
MODELS = ["digits", "echo", "found", "halves", "lookup"]


def make_found(directory: Path) -> str:
    """The model `found`, without a batch: where its four numbers are not zero. It may find nothing."""
    model = factory._model(
        [helper.make_node("NonZero", ["x"], ["at"])],
        [factory._value("x", "INT64", (4,))],
        [factory._value("at", "INT64", (1, "found"))],
        {},
    )
    return pack(
        directory,
        model,
        {"x": np.array([0, 5, 0, 7])},
        name="found-edge",
        version="2026.1",
        model="found",
        task="embedding",
        inputs=(TensorSpec("x", "INT64", (4,)),),
        outputs=(TensorSpec("at", "INT64", (1, -1)),),
        postprocess=Postprocess("at", "vector"),
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[BundleStore, dict[str, str]]:
    """A store of models, so that they can be loaded again, and their digests."""
    room = tmp_path_factory.mktemp("models")
    store = BundleStore(room / "store", reserve_bytes=0)
    makers: list[Callable[[Path], str]] = [
        make_classifier,
        lambda directory: make_echo(directory, (*NUMERIC, "BYTES")),
        make_found,
        lambda directory: make_echo(directory, ("BF16", "FP32"), name="halves-edge", model="halves"),
        make_lookup,
    ]
    for model, make in zip(MODELS, makers, strict=True):
        make(room / model)
    return store, {model: store.add_directory(room / model) for model in MODELS}


@pytest.fixture
async def url(host: ModelHost, serve: Serve, stored: tuple[BundleStore, dict[str, str]]) -> str:
    """The limit of a body is that of 9 images."""
    store, digests = stored
    bundles = StoredBundles(host, store, target=factory.TARGET, threads=1)
    for model, digest in digests.items():
        await bundles.serve(model, digest)
    return await serve(repository=bundles, admin_token="adm1n", max_body_bytes=4096)


@pytest.fixture(params=["sync", "aio"])
def call(request: pytest.FixtureRequest, url: str) -> Call:
    """Calls a method of a client by its name. The one for threads has an event loop of its own there."""
    address = url.removeprefix("http://")

    def in_thread(method: str, arguments: dict[str, Any]) -> Any:
        with closing(triton.InferenceServerClient(address)) as client:
            return getattr(client, method)(**arguments)

    async def with_threads(method: str, arguments: dict[str, Any]) -> Any:
        return await asyncio.to_thread(in_thread, method, arguments)

    async def with_coroutines(method: str, arguments: dict[str, Any]) -> Any:
        async with aio.InferenceServerClient(address) as client:
            return await getattr(client, method)(**arguments)

    return with_threads if request.param == "sync" else with_coroutines


class Refused(NamedTuple):
    status: int
    says: str


async def check(call: Call, method: str, arguments: dict[str, Any], wanted: Right | Refused) -> None:
    if not isinstance(wanted, Refused):
        assert wanted(await call(method, arguments))
        return
    with pytest.raises(InferenceServerException) as refused:
        await call(method, arguments)
    assert refused.value.status() == str(wanted.status)
    assert re.search(wanted.says, refused.value.message())


def has(**wanted: Any) -> Right:
    return lambda found: all(found[key] == value for key, value in wanted.items())


def true(found: Any) -> bool:
    return found is True


def false(found: Any) -> bool:
    return found is False


def nothing(found: Any) -> bool:
    return found is None


def index(found: Any) -> bool:
    return [(line["name"], line["state"]) for line in found] == [(model, "READY") for model in MODELS]


def every_model(found: Any) -> bool:
    return sorted(line["name"] for line in found["model_stats"]) == MODELS


def unused(found: Any) -> bool:
    (line,) = found["model_stats"]
    return bool(line["execution_count"] == 0 and line["batch_stats"] == [])


UNKNOWN = Refused(404, "Model 'nope' is not served here. Served: digits, echo, found, halves, lookup")
OTHER = Refused(404, "digits is served in version 1, not '7'. Leave the version out")
TRACE, LOGGING = Refused(404, "trace extension .* not served"), Refused(404, "logging extension .* not served")
SYSTEM, CUDA = Refused(404, "system shared memory extension .* Send tensors"), Refused(404, "CUDA shared memory ext")
TOKEN = Refused(403, "admin token")

ROUTES: list[tuple[str, dict[str, Any], Right | Refused]] = [
    ("is_server_live", {}, true),
    ("is_server_ready", {}, true),
    ("is_model_ready", {"model_name": "digits"}, true),
    ("is_model_ready", {"model_name": "digits", "model_version": "1"}, true),
    ("is_model_ready", {"model_name": "digits", "model_version": "7"}, false),
    ("is_model_ready", {"model_name": "nope"}, false),
    ("get_server_metadata", {}, has(name="foothill")),
    ("get_model_metadata", {"model_name": "found"}, has(name="found", versions=["2026.1"])),
    ("get_model_metadata", {"model_name": "digits", "model_version": "1"}, has(versions=["1"])),
    ("get_model_metadata", {"model_name": "digits", "model_version": "7"}, OTHER),
    ("get_model_metadata", {"model_name": "nope"}, UNKNOWN),
    ("get_model_config", {"model_name": "found"}, has(name="found", max_batch_size=0, backend="onnxruntime")),
    ("get_model_config", {"model_name": "digits", "model_version": "7"}, OTHER),
    ("get_model_config", {"model_name": "nope"}, UNKNOWN),
    ("get_inference_statistics", {}, every_model),
    ("get_inference_statistics", {"model_name": "digits"}, unused),
    ("get_inference_statistics", {"model_name": "digits", "model_version": "1"}, unused),
    ("get_inference_statistics", {"model_name": "digits", "model_version": "7"}, OTHER),
    ("get_inference_statistics", {"model_name": "nope"}, UNKNOWN),
    ("get_model_repository_index", {}, index),
    ("load_model", {"model_name": "digits"}, TOKEN),
    ("load_model", {"model_name": "digits", **ADMIN}, nothing),
    ("load_model", {"model_name": "nope", **ADMIN}, UNKNOWN),
    ("load_model", {"model_name": "digits", "config": "{}", **ADMIN}, Refused(400, "signed bundles.*config")),
    ("load_model", {"model_name": "digits", "files": {"file:1/model.onnx": b"x"}, "config": "{}", **ADMIN},
     Refused(400, "signed bundles.*file:1/model.onnx")),
    ("unload_model", {"model_name": "digits"}, TOKEN),
    ("unload_model", {"model_name": "digits", "unload_dependents": True, **ADMIN}, nothing),
    ("unload_model", {"model_name": "nope", **ADMIN}, UNKNOWN),
    ("get_trace_settings", {}, TRACE),
    ("get_trace_settings", {"model_name": "digits"}, TRACE),
    ("update_trace_settings", {"settings": {"trace_level": "OFF"}}, TRACE),
    ("update_trace_settings", {"model_name": "digits", "settings": {}}, TRACE),
    ("get_log_settings", {}, LOGGING),
    ("update_log_settings", {"settings": {"log_verbose_level": 1}}, LOGGING),
    ("get_system_shared_memory_status", {}, SYSTEM),
    ("get_system_shared_memory_status", {"region_name": "r"}, SYSTEM),
    ("register_system_shared_memory", {"name": "r", "key": "/k", "byte_size": 8}, SYSTEM),
    ("unregister_system_shared_memory", {}, SYSTEM),
    ("unregister_system_shared_memory", {"name": "r"}, SYSTEM),
    ("get_cuda_shared_memory_status", {}, CUDA),
    ("register_cuda_shared_memory", {"name": "r", "raw_handle": b"h", "device_id": 0, "byte_size": 8}, CUDA),
    ("unregister_cuda_shared_memory", {}, CUDA),
    ("unregister_cuda_shared_memory", {"name": "r"}, CUDA),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "arguments", "wanted"), ROUTES, ids=[f"{row}-{method}" for row, (method, _, _) in enumerate(ROUTES)]
)
async def test_a_call_that_runs_no_model(
    call: Call, method: str, arguments: dict[str, Any], wanted: Right | Refused
) -> None:
    await check(call, method, arguments, wanted)


def test_the_table_has_every_call_of_the_client() -> None:
    methods = {name for name in vars(aio.InferenceServerClient) if not name.startswith("_")}
    others = {"close", "infer", "generate_request_body", "parse_response_body", "register_plugin", "unregister_plugin"}
    assert methods - others - {"plugin"} == {method for method, _, _ in ROUTES}


async def test_an_unloaded_model_is_listed_as_unloaded_answers_nothing_and_comes_back(call: Call) -> None:
    await call("unload_model", {"model_name": "digits", **ADMIN})
    assert await call("is_model_ready", {"model_name": "digits"}) is False
    assert await call("is_server_ready", {}) is True
    (line,) = [line for line in await call("get_model_repository_index", {}) if line["name"] == "digits"]
    assert (line["state"], line["reason"]) == ("UNAVAILABLE", "unloaded")
    await check(call, "infer", asking("digits", {"image": IMAGE}), Refused(404, "'digits' is not served here"))
    await call("load_model", {"model_name": "digits", **ADMIN})
    assert (await call("infer", asking("digits", {"image": IMAGE}))).as_numpy("logits").shape == (1, 10)
    assert index(await call("get_model_repository_index", {}))


SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -65504.0],
    "FP32": [0.1, -3e38],
    "FP64": [0.1, -1e308],
    "BYTES": ["", "zwölf"],
}
ECHO = {f"x_{name}": np.array([values], triton_to_np_dtype(name)) for name, values in SAMPLES.items()}
IMAGE, ROW = np.zeros((1, 1, 8, 8), np.float32), np.array([[2]])


def given(name: str, array: Array, datatype: str, *, binary: bool) -> triton.InferInput:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def datatype_of(name: str, array: Array) -> str:
    if name.startswith("x_"):
        return name[2:]
    return {"f4": "FP32", "f8": "FP64", "i8": "INT64", "i4": "INT32"}[array.dtype.str[1:]]


def asking(model: str, arrays: Mapping[str, Array], *, binary: bool = True) -> dict[str, Any]:
    inputs = [given(name, array, datatype_of(name, array), binary=binary) for name, array in arrays.items()]
    return {"model_name": model, "inputs": inputs}


class Ask(NamedTuple):
    """An infer request: `outputs` by name, each with how many classes are asked for; None names none."""

    what: str
    model: str
    arrays: dict[str, Array]
    wanted: Right | Refused
    outputs: dict[str, int] | None = None
    more: Mapping[str, Any] = MappingProxyType({})


def gives(**wanted: Any) -> Right:
    def right(result: Any) -> bool:
        found = {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}
        return found.keys() == wanted.keys() and all(_same(found[name], array) for name, array in wanted.items())

    return right


def _same(found: Array, wanted: Any) -> bool:
    if found.dtype.kind in "OS":
        texts = [item.decode() if isinstance(item, bytes) else item for item in found.ravel()]
        return texts == [str(item) for item in np.ravel(wanted)]
    return found.shape == np.shape(wanted) and np.array_equal(found, wanted)


def says(**wanted: Any) -> Right:
    return lambda result: has(**wanted)(result.get_response())


ONE_HOT = np.eye(4, dtype=np.float32)[2:3] * 10
ECHOED = {f"y_{name[2:]}": array for name, array in ECHO.items()}
NAN = np.array([[math.nan, 1]], np.float32)


def echo(**changed: Array) -> dict[str, Array]:
    return {**ECHO, **changed}


INFER: list[Ask] = [
    Ask("every datatype", "echo", ECHO, gives(**ECHOED)),
    Ask("every datatype, named", "echo", ECHO, gives(**ECHOED), dict.fromkeys(ECHOED, 0)),
    Ask("some outputs, in another order", "echo", ECHO, gives(y_INT8=[[-128, 127]], y_FP16=[[0.5, -65504]]),
        {"y_INT8": 0, "y_FP16": 0}),
    Ask("an id", "lookup", {"index": ROW}, says(id="r-1", model_name="lookup", model_version="1"),
        more={"request_id": "r-1"}),
    Ask("a version", "found", {"x": np.array([1, 0, 0, 1])}, gives(at=[[0, 3]]), more={"model_version": "2026.1"}),
    Ask("a model without a batch", "found", {"x": np.array([0, 0, 3, 0])}, gives(at=[[2]])),
    Ask("an answer of no elements", "found", {"x": np.zeros(4, np.int64)}, gives(at=np.zeros((1, 0)))),
    Ask("a batch", "lookup", {"index": np.array([[0], [3]])}, gives(logits=np.eye(4)[[0, 3]] * 10)),
    Ask("the best class", "lookup", {"index": ROW}, gives(logits=[["10.000000:2:c"]]), {"logits": 1}),
    Ask("more classes than there are", "lookup", {"index": ROW},
        gives(logits=[["10.000000:2:c", "0.000000:0:a", "0.000000:1:b", "0.000000:3:d"]]), {"logits": 99}),
    Ask("classes of no scores", "echo", ECHO, Refused(400, "y_BYTES.*rows of numbers"), {"y_BYTES": 2}),
    Ask("a priority", "lookup", {"index": ROW}, gives(logits=ONE_HOT), more={"priority": 1}),
    Ask("a negative priority", "lookup", {"index": ROW}, Refused(400, "priority"), more={"priority": -1}),
    Ask("a timeout", "lookup", {"index": ROW}, gives(logits=ONE_HOT), more={"timeout": 5_000_000}),
    Ask("a timeout too short", "lookup", {"index": ROW}, Refused(504, "deadline"), more={"timeout": 1}),
    Ask("a negative timeout", "lookup", {"index": ROW}, Refused(400, "timeout"), more={"timeout": -1}),
    Ask("a sequence, which no model here has", "lookup", {"index": ROW}, gives(logits=ONE_HOT),
        more={"sequence_id": 7, "sequence_start": True, "sequence_end": False}),
    Ask("a sequence by name", "lookup", {"index": ROW}, gives(logits=ONE_HOT),
        more={"sequence_id": "s", "sequence_start": True, "sequence_end": True}),
    Ask("parameters of its own", "lookup", {"index": ROW}, gives(logits=ONE_HOT), more={"parameters": {"mine": 1}}),
    Ask("gzip", "lookup", {"index": ROW}, gives(logits=ONE_HOT),
        more={"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}),
    Ask("deflate", "lookup", {"index": ROW}, gives(logits=ONE_HOT),
        more={"request_compression_algorithm": "deflate", "response_compression_algorithm": "deflate"}),
    Ask("an unknown model", "nope", {"index": ROW}, UNKNOWN),
    Ask("another version", "digits", {"image": IMAGE}, OTHER, more={"model_version": "7"}),
    Ask("a wrong name", "lookup", {"idx": ROW}, Refused(400, "expected 'index', got 'idx'")),
    Ask("an input too many", "lookup", {"index": ROW, "more": ROW}, Refused(400, "got 'index', 'more'")),
    Ask("an input too few", "echo", {"x_INT8": ECHO["x_INT8"]}, Refused(400, "got 'x_INT8'")),
    Ask("a wrong datatype", "lookup", {"index": ROW.astype(np.int32)}, Refused(400, "datatype INT64, got.*'INT32'")),
    Ask("a wrong shape", "digits", {"image": IMAGE[:, :, :7]}, Refused(400, r"\[batch,1,8,8\], got shape \[1,1,7,8\]")),
    Ask("a wrong rank", "digits", {"image": IMAGE[0]}, Refused(400, r"got shape \[1,8,8\]")),
    Ask("no rank at all", "lookup", {"index": np.array(2)}, Refused(400, r"got shape \[\]")),
    Ask("no rows", "lookup", {"index": np.zeros((0, 1), np.int64)}, Refused(400, r"got shape \[0,1\]")),
    Ask("too many rows", "lookup", {"index": np.zeros((33, 1), np.int64)}, Refused(400, "at most 32 rows, got 33")),
    Ask("rows that differ", "echo", echo(x_INT8=np.zeros((2, 2), np.int8)), Refused(400, "x_INT8.*1 rows.*got 2")),
    Ask("values out of range", "lookup", {"index": np.array([[99]])}, Refused(400, "The model refuses")),
    Ask("an unknown output", "lookup", {"index": ROW}, Refused(400, "'no'.*one of the outputs logits"), {"no": 0}),
    Ask("too large a body", "digits", {"image": np.full((9, 1, 8, 8), 0.123456, np.float64)},
        Refused(413, "more than 4096 bytes.*max_body_bytes")),
]  # fmt: skip


@pytest.mark.parametrize("ask", INFER, ids=[ask.what for ask in INFER])
async def test_a_call_that_runs_a_model_in_json_and_in_binary_both_ways(call: Call, ask: Ask) -> None:
    for binary_in in (True, False):
        for binary_out in (True, False):
            arguments = arguments_of(ask, binary_in=binary_in, binary_out=binary_out)
            await check(call, "infer", arguments, ask.wanted)


def arguments_of(ask: Ask, *, binary_in: bool, binary_out: bool) -> dict[str, Any]:
    arguments = asking(ask.model, ask.arrays, binary=binary_in) | dict(ask.more)
    named = ask.outputs
    if named is None and not binary_out:
        named = {"echo": dict.fromkeys(ECHOED, 0), "found": {"at": 0}}.get(ask.model, {"logits": 0})
    if named is not None:
        arguments["outputs"] = [
            triton.InferRequestedOutput(name, binary_data=binary_out, class_count=classes)
            for name, classes in named.items()
        ]
    return arguments


async def test_numbers_that_json_has_no_word_for_go_as_binary(call: Call) -> None:
    arrays = echo(x_FP32=NAN)
    binary = await call("infer", asking("echo", arrays))
    np.testing.assert_array_equal(binary.as_numpy("y_FP32"), NAN)
    outputs = {"outputs": [triton.InferRequestedOutput("y_FP32", binary_data=False)]}
    await check(call, "infer", asking("echo", arrays) | outputs, Refused(400, "NaN or infinity: ask for binary_data"))


async def test_bfloat16_goes_in_as_binary_and_comes_out_in_both_forms(call: Call) -> None:
    halves, plain = np.array([[0.1, -3e38]], ml_dtypes.bfloat16), np.array([[0.1, -3e38]], np.float32)
    asked = asking("halves", {"x_BF16": halves, "x_FP32": plain})
    for binary in (True, False):
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("y_BF16", "y_FP32")]
        result = await call("infer", asked | {"outputs": outputs})
        assert gives(y_BF16=halves, y_FP32=plain)(result)
        assert [output["datatype"] for output in result.get_response()["outputs"]] == ["BF16", "FP32"]
    assert (await call("get_model_metadata", {"model_name": "halves"}))["inputs"][0]["datatype"] == "BF16"
    assert (await call("get_model_config", {"model_name": "halves"}))["input"][0]["data_type"] == "TYPE_BF16"


async def test_outputs_may_come_in_different_forms(call: Call) -> None:
    forms = {"y_INT8": False, "y_FP32": True, "y_BYTES": False}
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name, binary in forms.items()]
    result = await call("infer", asking("echo", ECHO) | {"outputs": outputs})
    assert gives(**{name: ECHOED[name] for name in forms})(result)
    assert ["data" in output for output in result.get_response()["outputs"]] == [True, False, True]


async def test_requests_of_the_client_in_the_background_all_come_back(url: str) -> None:
    def ask() -> list[int]:
        with closing(triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4)) as client:
            pending = [client.async_infer(**asking("lookup", {"index": np.array([[row % 4]])})) for row in range(20)]
            return [int(one.get_result().as_numpy("logits").argmax()) for one in pending]

    assert await asyncio.to_thread(ask) == [row % 4 for row in range(20)]


async def test_an_output_or_input_in_shared_memory_is_refused(call: Call) -> None:
    output = triton.InferRequestedOutput("logits")
    output.set_shared_memory("region", 16)
    asked = asking("lookup", {"index": ROW}) | {"outputs": [output]}
    await check(call, "infer", asked, Refused(400, "shared memory is not served"))
    asked = asking("lookup", {"index": ROW})
    asked["inputs"][0].set_shared_memory("region", 8)
    await check(call, "infer", asked, Refused(400, "shared memory is not served"))


async def test_statistics_tell_requests_rows_runs_and_failures(call: Call) -> None:
    for rows in (1, 2, 2):
        await call("infer", asking("lookup", {"index": np.zeros((rows, 1), np.int64)}))
    await check(call, "infer", asking("lookup", {"index": np.array([[99]])}), Refused(400, "refuses"))
    (told,) = (await call("get_inference_statistics", {"model_name": "lookup"}))["model_stats"]
    assert (told["name"], told["version"]) == ("lookup", "1")
    assert (told["inference_count"], told["execution_count"]) == (5, 3)
    stats = told["inference_stats"]
    assert [stats[what]["count"] for what in ("success", "fail", "queue", "compute_infer")] == [3, 1, 3, 3]
    assert [stats[what]["count"] for what in ("cache_hit", "cache_miss")] == [0, 0]
    batches = {line["batch_size"]: line["compute_infer"] for line in told["batch_stats"]}
    assert {size: each["count"] for size, each in batches.items()} == {1: 1, 2: 2}
    assert all(each["ns"] > 0 for each in batches.values())
    assert told["last_inference"] > 1_700_000_000_000


async def test_requests_that_meet_are_one_execution(url: str) -> None:
    """Thirty-two requests at once: rows are counted by request, executions by run of the engine."""
    async with aio.InferenceServerClient(url.removeprefix("http://"), conn_limit=32) as client:
        await asyncio.gather(*(client.infer(**asking("lookup", {"index": ROW})) for _ in range(32)))
        (told,) = (await client.get_inference_statistics("lookup"))["model_stats"]
    assert told["inference_count"] == 32
    assert told["execution_count"] == sum(line["compute_infer"]["count"] for line in told["batch_stats"])
    assert sum(line["batch_size"] * line["compute_infer"]["count"] for line in told["batch_stats"]) == 32
