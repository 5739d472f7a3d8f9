"""The node under test, as its HTTP routes show it."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping

import msgspec
import numpy as np

from contracts import headers, oip
from contracts import manifest as manifests
from contracts.errors import FoothillError
from contracts.manifest import Manifest
from contracts.timing import parse_server_timing
from hil import tensors
from hil.exposition import Vitals, vitals_of
from hil.http_port import HttpPort, plain
from hil.load import Shot
from hil.tensors import NUMPY, Array
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable

MAX_ELEMENTS = 1 << 26
FAULTS = (FoothillError, UpstreamUnreachable, ValueError, KeyError, TypeError, OverflowError, MemoryError, EOFError)
"""What a node that is away, or lies about sizes, names or types, shows as."""


class _Text(msgspec.Struct, frozen=True):
    string_value: str


class ModelConfig(msgspec.Struct, frozen=True):
    """The part of a model's configuration that says what is really served."""

    max_batch_size: int
    default_model_filename: str
    parameters: dict[str, _Text]

    def said(self, name: str) -> str:
        """A parameter's text, "" where the node does not say."""
        return plain(self.parameters[name].string_value, 200) if name in self.parameters else ""

    @property
    def digest(self) -> str:
        """Of the bundle, `sha256:<64 hex>`; "" where the node does not say."""
        return self.said("digest")


class Health(msgspec.Struct, frozen=True):
    """The part of `/healthz` that names the node."""

    node: str = ""
    ready: bool = False


class Subject(msgspec.Struct, frozen=True):
    """One served model, as far as the node describes it."""

    name: str
    metadata: oip.ModelMetadata
    config: ModelConfig


class NodeUnderTest:
    """`admin_token` empty: bundle files are not asked for. `token` is what callers of models show, "" none."""

    def __init__(self, url: str, upstreams: Upstreams, *, admin_token: str = "", token: str = "") -> None:
        self.http = HttpPort(url, upstreams, name="the node", token=admin_token)
        self._token = token

    @property
    def url(self) -> str:
        return self.http.url

    @property
    def has_admin(self) -> bool:
        return bool(self.http.token)

    async def health(self) -> Health:
        return await self.http.read("/healthz", Health)

    async def is_ready(self) -> bool:
        """Whether it serves; a node that is away is not ready."""
        try:
            await self.http.ask("GET", "/v2/health/ready", timeout_s=5.0)
        except FAULTS:
            return False
        return True

    async def models(self) -> list[str]:
        path = "/v2/repository/index"
        answer = await self.http.ask("POST", path, b"{}", headers={"Content-Type": "application/json"})
        entries = self.http.decoded(answer.body, list[oip.IndexEntry], path)
        return [entry.name for entry in entries if entry.state != "UNAVAILABLE"]

    async def subject(self, model: str) -> Subject:
        metadata = await self.http.read(f"/v2/models/{model}", oip.ModelMetadata)
        return Subject(model, metadata, await self.config(model))

    async def config(self, model: str) -> ModelConfig:
        return await self.http.read(f"/v2/models/{model}/config", ModelConfig)

    async def vitals(self) -> Vitals:
        return vitals_of((await self.http.ask("GET", "/metrics", timeout_s=10.0)).body)

    async def manifest(self, digest: str) -> Manifest:
        return manifests.decode(await self.file(digest, manifests.FILE, digest))

    async def file(self, digest: str, path: str, expected: str) -> bytes:
        """One file of a stored bundle; `expected` is its own digest. Raises FoothillError `bad_bundle` for others."""
        data = (await self.http.ask("GET", f"/v1/bundles/{digest}/{path}", admin=True)).body
        if manifests.digest_of(data) != expected:
            raise FoothillError(
                "bad_bundle", f"The node's {path} is not the one its bundle names: the copy is damaged."
            )
        return data

    async def arrays(self, digest: str, manifest: Manifest, files: Mapping[str, str]) -> dict[str, Array]:
        loaded = {}
        for name, path in files.items():
            data = await self.file(digest, path, manifest.files[path].sha256)
            loaded[name] = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        return loaded

    def request(self, subject: Subject, inputs: Mapping[str, Array]) -> Request:
        """One inference with binary tensors, never escalated: the answer is the node's own."""
        datatypes = {spec.name: spec.datatype for spec in subject.metadata.inputs}
        parts = [tensors.to_bytes(array, datatypes[name]) for name, array in inputs.items()]
        named = tuple(
            oip.InputTensor(name, array.shape, datatypes[name], oip.InputParameters(binary_data_size=len(part)))
            for (name, array), part in zip(inputs.items(), parts, strict=True)
        )
        wanted = oip.RequestParameters(binary_data_output=True)
        body, length = oip.frame(oip.InferRequest(named, parameters=wanted), parts)
        given = {
            "Content-Type": "application/octet-stream",
            oip.HEADER_LENGTH: str(length),
            headers.ESCALATION: "never",
        }
        if self._token:
            given["Authorization"] = f"Bearer {self._token}"
        return Request("POST", f"/v2/models/{subject.name}/infer", given, body)

    async def infer(self, subject: Subject, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name. Raises one of FAULTS."""
        request = self.request(subject, inputs)
        answer = await self.http.ask("POST", request.path, request.body, headers=request.headers)
        return _outputs(answer, self.http)

    async def shoot(self, request: Request) -> Shot:
        """The same request as a figure: it never raises for what the node does."""
        started_s = time.monotonic()
        try:
            answer = await self.http.send(request)
        except (UpstreamUnreachable, FoothillError) as error:
            return Shot(0, (time.monotonic() - started_s) * 1000.0, {}, plain(str(error)))
        said = "" if answer.status == 200 else plain(answer.body[:300].decode(errors="replace"))
        timing = parse_server_timing(answer.headers.get(headers.SERVER_TIMING))
        return Shot(answer.status, answer.hop_ms, timing, said, answer.headers.get(headers.DIGEST, ""))


def check_tensors(subject: Subject) -> str:
    """What keeps a model from being asked, "" when nothing does."""
    specs = (*subject.metadata.inputs, *subject.metadata.outputs)
    strange = [plain(spec.name, 80) for spec in specs if spec.datatype not in NUMPY]
    if strange or not subject.metadata.inputs or not subject.metadata.outputs:
        return f"tensors missing or of unknown type: {strange}"
    large = [plain(spec.name, 80) for spec in specs if oip.elements([max(1, n) for n in spec.shape]) > MAX_ELEMENTS]
    return f"one row of {large} has more than {MAX_ELEMENTS} elements" if large else ""


def blank(subject: Subject) -> dict[str, Array]:
    """One row of nothing, for who may not see the bundle's own inputs."""
    return {
        spec.name: tensors.blank(spec.datatype, [max(1, size) for size in spec.shape])
        for spec in subject.metadata.inputs
    }


def _outputs(answer: Answer, http: HttpPort) -> dict[str, Array]:
    length = int(answer.headers.get(oip.HEADER_LENGTH, len(answer.body)))
    response = http.decoded(answer.body[:length], oip.InferResponse, "infer")
    rest, outputs = memoryview(answer.body)[length:], {}
    for tensor in response.outputs:
        size = tensor.parameters.binary_data_size if tensor.parameters is not None else 0
        told = tensors.from_bytes(tensor, rest[:size]) if size else np.array(tensor.data, NUMPY[tensor.datatype])
        outputs[tensor.name] = told.reshape(tensor.shape)
        rest = rest[size:]
    return outputs
