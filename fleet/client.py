"""An operator's client of the fleet manager's HTTP API. Synchronous: for the command line and for scripts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

import httpx
import msgspec

from contracts import manifest as manifests
from contracts.decoding import UNREADABLE
from contracts.enrolment import TokenAnswer, TokenRequest
from contracts.errors import KINDS, ErrorBody, FoothillError
from fleet.acceptance import AcceptanceView, Accepted, Demand, DemandRequest
from fleet.api import ModelDetail, ModelView, NodeView, RolloutRequest, RolloutView, StopRequest
from fleet.audit_reader import AuditHead
from fleet.auditing.chain import Entry
from fleet.state import AuditTally

T = TypeVar("T")

_CHUNK_BYTES = 1 << 20
_WATCH_TRIES = 30
_WATCH_PAUSE_S = 1.0
_DATA = b"data: "


class FleetClient:
    """Speaks as the holder of the admin token. Every method raises FoothillError: the fleet's own, or `unavailable`."""

    def __init__(self, url: str, token: str, *, timeout_s: float = 60.0) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s

    def issue_token(self, request: TokenRequest) -> TokenAnswer:
        return self._call("POST", "/v1/tokens", TokenAnswer, msgspec.json.encode(request))

    def nodes(self) -> list[NodeView]:
        return self._call("GET", "/v1/nodes", list[NodeView])

    def models(self) -> list[ModelView]:
        return self._call("GET", "/v1/models", list[ModelView])

    def model(self, reference: str) -> ModelDetail:
        name, version = manifests.parse_reference(reference)
        return self._call("GET", f"/v1/models/{name}/{version}", ModelDetail)

    def audits(self) -> list[AuditTally]:
        return self._call("GET", "/v1/audits", list[AuditTally])

    def publish(self, directory: Path) -> ModelDetail:
        """Uploads a packed bundle directory, with its measurements where it has some, and has it signed."""
        data = _read(directory / manifests.FILE)
        manifest = manifests.decode(data)
        for name, file in manifest.files.items():
            self._upload(directory / name, file)
        detail = self._call("POST", "/v1/models", ModelDetail, data)
        measurements = directory / manifests.MEASUREMENTS_FILE
        if measurements.exists():
            path = f"/v1/models/{manifest.name}/{manifest.version}/measurements"
            detail = self._call("POST", path, ModelDetail, measurements.read_bytes())
        return detail

    def withdraw(self, node: str, model: str) -> None:
        """Takes a model off one node."""
        self._call("DELETE", f"/v1/nodes/{node}/models/{model}", dict[str, str])

    def acceptance(self) -> AcceptanceView:
        return self._call("GET", "/v1/acceptance", AcceptanceView)

    def require_acceptance(self, target: str, request: DemandRequest) -> Demand:
        return self._call("PUT", f"/v1/acceptance/{target}", Demand, msgspec.json.encode(request))

    def lift_acceptance(self, target: str) -> None:
        self._call("DELETE", f"/v1/acceptance/{target}", dict[str, str])

    def submit_acceptance(self, report: bytes) -> Accepted:
        """Takes the bytes of a report file."""
        return self._call("POST", "/v1/acceptance/reports", Accepted, report)

    def audit_head(self) -> AuditHead:
        return self._call("GET", "/v1/audit/head", AuditHead)

    def audit_log(self, after: int = 0) -> Iterator[Entry]:
        """Entries of the audit log above the number `after`, as they come."""
        path = f"/v1/audit/log?after={after}"
        return (self._decoded(path, line, Entry) for line in self._lines(path) if line)

    def start_rollout(self, request: RolloutRequest) -> RolloutView:
        return self._call("POST", "/v1/rollouts", RolloutView, msgspec.json.encode(request))

    def rollouts(self) -> list[RolloutView]:
        """Oldest first."""
        return self._call("GET", "/v1/rollouts", list[RolloutView])

    def rollout(self, rollout_id: str) -> RolloutView:
        return self._call("GET", f"/v1/rollouts/{rollout_id}", RolloutView)

    def abort(self, rollout_id: str, reason: str) -> RolloutView:
        body = msgspec.json.encode(StopRequest(reason))
        return self._call("POST", f"/v1/rollouts/{rollout_id}/abort", RolloutView, body)

    def roll_back(self, rollout_id: str, reason: str) -> RolloutView:
        body = msgspec.json.encode(StopRequest(reason))
        return self._call("POST", f"/v1/rollouts/{rollout_id}/rollback", RolloutView, body)

    def steer(self, rollout_id: str, wish: Literal["pause", "resume", "promote", "retry"]) -> RolloutView:
        return self._call("POST", f"/v1/rollouts/{rollout_id}/{wish}", RolloutView)

    def watch(self, rollout_id: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[RolloutView]:
        """The rollout now and after every change, until it ends; over restarts of the fleet manager of up to 30 s."""
        failures = 0
        while True:
            try:
                path = f"/v1/rollouts/{rollout_id}/events"
                for line in self._lines(path):
                    if not line.startswith(_DATA):
                        continue
                    view = self._decoded(path, line.removeprefix(_DATA), RolloutView)
                    failures = 0
                    yield view
                    if view.ended:
                        return
            except FoothillError as error:
                failures += 1
                if error.code != "unavailable" or failures > _WATCH_TRIES:
                    raise
            sleep(_WATCH_PAUSE_S)

    def _lines(self, path: str) -> Iterator[bytes]:
        """Of an answer, as they come. A line ends with a line feed, and with nothing else that ends lines of text."""
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s)
        try:
            with httpx.stream("GET", self._url + path, headers=self._headers, timeout=timeout) as answer:
                if answer.status_code != 200:
                    raise _error(answer.status_code, answer.read())
                yield from _split(answer.iter_bytes())
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _upload(self, path: Path, file: manifests.File) -> None:
        target = f"/v1/blobs/{file.sha256}"
        if self._send("HEAD", target).status_code == 200:
            return
        _check(path, file)
        headers = {"Content-Length": str(file.bytes), "Content-Type": "application/octet-stream"}
        with path.open("rb") as opened:
            answer = self._send("PUT", target, iter(lambda: opened.read(_CHUNK_BYTES), b""), headers)
        if answer.status_code != 201:
            raise _error(answer.status_code, answer.content)

    def _call(self, method: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        answer = self._send(method, path, body)
        if answer.status_code not in (200, 201):
            raise _error(answer.status_code, answer.content)
        return self._decoded(path, answer.content, kind)

    def _decoded(self, path: str, data: bytes | str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except UNREADABLE as error:
            raise FoothillError(
                "upstream_failed", f"{self._url}{path} does not answer like this version's fleet manager: {error}."
            ) from error

    def _send(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        sent = self._headers | (headers or {})
        try:
            return httpx.request(method, self._url + path, content=body, headers=sent, timeout=self._timeout_s)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> FoothillError:
        return FoothillError(
            "unavailable",
            f"No fleet manager answers at {self._url}: {error}. Start one with `foothill fleet serve`, or name it "
            f"with --fleet.",
        )


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    open_line: list[bytes] = []
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        open_line.append(first)
        for line in more:
            yield b"".join(open_line)
            open_line = [line]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FoothillError(
            "bad_request",
            f"{path}: {error.strerror}. Give the directory of a packed bundle.",
        ) from error


def _check(path: Path, file: manifests.File) -> None:
    """The file beside the manifest must be the one it names: better told here than after a long upload."""
    hashed = hashlib.sha256()
    try:
        with path.open("rb") as opened:
            while chunk := opened.read(_CHUNK_BYTES):
                hashed.update(chunk)
    except OSError as error:
        raise FoothillError("bad_bundle", f"{path}: {error.strerror}. Pack the bundle again.") from error
    if "sha256:" + hashed.hexdigest() != file.sha256:
        raise FoothillError("bad_bundle", f"{path} is not the file that its manifest names. Pack the bundle again.")


def _error(status: int, body: bytes) -> FoothillError:
    try:
        told = msgspec.json.decode(body, type=ErrorBody)
    except UNREADABLE:
        return FoothillError("upstream_failed", f"HTTP {status}, and not from a Foothill fleet manager.")
    code = told.code if told.code in KINDS else "upstream_failed"
    return FoothillError(code, told.message, source=told.source)
