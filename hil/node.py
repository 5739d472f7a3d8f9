"""The node under test, as its HTTP routes show it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from contracts import headers, oip
from contracts.deadlines import Deadline
from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from contracts.timing import parse_server_timing
from runtime.links.upstream import Answer, Request, Upstreams

T = TypeVar("T")
Array = npt.NDArray[Any]

DEADLINE_MS = 30_000.0
NUMPY: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


class _Text(msgspec.Struct, frozen=True):
    string_value: str


class ModelConfig(msgspec.Struct, frozen=True):
    """The part of a model's configuration that says what is really served."""

    max_batch_size: int
    default_model_filename: str
    parameters: dict[str, _Text]

    @property
    def digest(self) -> str:
        """Of the bundle, `sha256:<64 hex>`; "" where the node does not say."""
        return self.parameters["digest"].string_value if "digest" in self.parameters else ""


class Inferred(msgspec.Struct, frozen=True):
    """Outputs by name; `hop_ms` as the caller saw it, `infer_ms` of the engine as the node says (None: it does not)."""

    outputs: dict[str, Array]
    hop_ms: float
    infer_ms: float | None


class NodeUnderTest:
    """`admin_token` empty: bundle files are not asked for."""

    def __init__(self, url: str, upstreams: Upstreams, *, admin_token: str = "") -> None:
        self.url = url.rstrip("/")
        self.admin_token = admin_token
        self._upstreams = upstreams

    async def get(self, path: str, *, admin: bool = False) -> Answer:
        """Raises FoothillError with the node's own words for anything but 200."""
        given = {"Authorization": f"Bearer {self.admin_token}"} if admin else {}
        return await self._send(Request("GET", path, given))

    async def get_json(self, path: str, kind: type[T]) -> T:
        return _decode((await self.get(path)).body, kind, path)

    async def models(self) -> list[oip.IndexEntry]:
        path = "/v2/repository/index"
        answer = await self._send(Request("POST", path, {"Content-Type": "application/json"}, b"{}"))
        return _decode(answer.body, list[oip.IndexEntry], path)

    async def config(self, model: str) -> ModelConfig:
        return await self.get_json(f"/v2/models/{model}/config", ModelConfig)

    async def infer(self, model: str, inputs: Mapping[str, Array], metadata: oip.ModelMetadata) -> Inferred:
        """One request with binary tensors, never escalated: the answer is the node's own."""
        datatypes = {spec.name: spec.datatype for spec in metadata.inputs}
        parts = [np.ascontiguousarray(array, NUMPY[datatypes[name]]).tobytes() for name, array in inputs.items()]
        tensors = tuple(
            oip.InputTensor(name, array.shape, datatypes[name], oip.InputParameters(binary_data_size=len(part)))
            for (name, array), part in zip(inputs.items(), parts, strict=True)
        )
        body, length = oip.frame(
            oip.InferRequest(tensors, parameters=oip.RequestParameters(binary_data_output=True)), parts
        )
        given = {
            "Content-Type": "application/octet-stream",
            oip.HEADER_LENGTH: str(length),
            headers.ESCALATION: "never",
        }
        answer = await self._send(Request("POST", f"/v2/models/{model}/infer", given, body))
        timing = parse_server_timing(answer.headers.get(headers.SERVER_TIMING))
        return Inferred(_outputs(answer), answer.hop_ms, timing.get("infer"))

    async def _send(self, request: Request) -> Answer:
        deadline = Deadline.after(DEADLINE_MS, now_s=time.monotonic())
        answer = await self._upstreams.send(self.url, request, deadline=deadline)
        if answer.status != 200:
            said = answer.body[:300].decode(errors="replace")
            raise FoothillError("upstream_failed", f"{request.method} {request.path} answered {answer.status}: {said}")
        return answer


def _outputs(answer: Answer) -> dict[str, Array]:
    length = int(answer.headers.get(oip.HEADER_LENGTH, len(answer.body)))
    response = _decode(answer.body[:length], oip.InferResponse, "infer")
    rest, outputs = memoryview(answer.body)[length:], {}
    for tensor in response.outputs:
        size = tensor.parameters.binary_data_size if tensor.parameters is not None else 0
        data = rest[:size]
        values = np.frombuffer(data, NUMPY[tensor.datatype]) if size else np.array(tensor.data, NUMPY[tensor.datatype])
        outputs[tensor.name] = values.reshape(tensor.shape)
        rest = rest[size:]
    return outputs


def _decode(data: bytes, kind: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise FoothillError("upstream_failed", f"{path} answered something else than the contract: {error}.") from error
