"""The peers: which servers are measured beside ours, in which setups, how each is asked and how its answer is read.

Every setup takes the most efficient body that its server offers over HTTP. Which setup is best depends on the model and
on the load, so that all are measured.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.bundles import Body, Floats, Served
from contracts.oip import HEADER_LENGTH
from foothill.client.tensors import decode_answer, encode_request

_ROOT = Path(__file__).resolve().parents[1]
_BINARY = {"Content-Type": "application/octet-stream"}


class Model(NamedTuple):
    """What is served: its title in the table, and up to how many rows a batch may have where there are batches."""

    title: str
    served: Served
    max_batch: int

    @property
    def name(self) -> str:
        return self.served.packed.manifest.model

    @property
    def input(self) -> str:
        return self.served.packed.manifest.inputs[0].name

    @property
    def output(self) -> str:
        return self.served.packed.manifest.outputs[0].name


Ask = Callable[[Model, Floats], Body]
"""The request for one row, of shape (1, ...)."""
Read = Callable[[Model, Mapping[str, str], bytes], Floats]
"""Headers, with names in lower case, and body of an answer as a flat row. Raises what decoding raises."""


class Setup(NamedTuple):
    """`batch_delay_ms`: how long a batch waits for more rows; None where the server makes none."""

    name: str
    ask: Ask
    read: Read
    batch_delay_ms: float | None = None

    def told(self, model: Model) -> str:
        """In words, for the table."""
        if self.batch_delay_ms is None:
            return f"{self.name}, no batches"
        return f"{self.name}, batches of up to {model.max_batch} within {self.batch_delay_ms:g} ms"


class Peer(NamedTuple):
    """A server that is no part of this repository, in an environment that `make bench-peers` has made and marked.

    GET `ready` answers 200 once `{model}` is served.
    """

    name: str
    environment: Path
    program: Path
    ready: str
    setups: tuple[Setup, ...]

    @property
    def python(self) -> Path:
        return self.environment / "bin/python"

    @property
    def missing(self) -> str:
        """Why it cannot be measured; empty when it can."""
        complete = (self.environment / ".installed").exists()
        return (
            "" if complete else f"not run: {self.environment.name} is missing or incomplete, make bench-peers makes it"
        )


class _Output(msgspec.Struct):
    data: tuple[bytes, ...]


class _Outputs(msgspec.Struct):
    """An answer of the Open Inference Protocol with `BYTES` outputs; msgspec decodes base64 by itself."""

    outputs: tuple[_Output, ...]


def ask_tensors(model: Model, row: Floats) -> Body:
    """Open Inference Protocol with binary tensors."""
    content, json_bytes = encode_request({model.input: row}, ())
    return Body(f"/v2/models/{model.name}/infer", {**_BINARY, HEADER_LENGTH: str(json_bytes)}, bytes(content))


def read_tensors(model: Model, headers: Mapping[str, str], body: bytes) -> Floats:
    answer = decode_answer(body, headers.get(HEADER_LENGTH.lower()))[model.output]
    return np.frombuffer(answer.data, "<f4")


def _ask_litserve(model: Model, row: Floats) -> Body:
    return Body(f"/{model.name}", _BINARY, row.tobytes())


def _ask_handler(_model: Model, row: Floats) -> Body:
    return Body("/bytes", _BINARY, row.tobytes())


def _ask_base64(model: Model, row: Floats) -> Body:
    """The Open Inference Protocol's JSON with all of the tensor as one text: numbers would be several times larger."""
    data = base64.b64encode(row.tobytes()).decode()
    tensor = {"name": model.input, "datatype": "BYTES", "shape": [1, 1], "data": [data]}
    request = {"inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}
    return Body(f"/v2/models/{model.name}/infer", {"Content-Type": "application/json"}, msgspec.json.encode(request))


def _read_bytes(_model: Model, _headers: Mapping[str, str], body: bytes) -> Floats:
    return np.frombuffer(body, "<f4")


def _read_base64(_model: Model, _headers: Mapping[str, str], body: bytes) -> Floats:
    return np.frombuffer(msgspec.json.decode(body, type=_Outputs).outputs[0].data[0], "<f4")


def _peer(name: str, ready: str, *setups: Setup) -> Peer:
    key = name.lower()
    program = _ROOT / f"benchmarks/peer_servers/{key}_server.py"
    return Peer(name, _ROOT / f".venv-peer-{key}", program, ready, setups)


# Delays: Triton's default; the shortest that LitServe keeps without turning in circles; MLServer's must be more than 0.
PEERS = (
    _peer(
        "Triton",
        "/v2/models/{model}/ready",
        Setup("binary tensors", ask_tensors, read_tensors),
        Setup("binary tensors", ask_tensors, read_tensors, 0.0),
    ),
    _peer(
        "LitServe",
        "/health",
        Setup("bytes", _ask_litserve, _read_bytes),
        Setup("bytes", _ask_litserve, _read_bytes, 1.0),
    ),
    _peer(
        "MLServer",
        "/v2/models/{model}/ready",
        Setup("bytes to a handler", _ask_handler, _read_bytes),
        Setup("base64", _ask_base64, _read_base64),
        Setup("base64", _ask_base64, _read_base64, 1.0),
    ),
)
