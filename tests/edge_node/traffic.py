"""Callers of a node, of all kinds, as cheap as asyncio can make them: closed loops over real sockets."""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import numpy as np
import simplejpeg

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_MOST_FAILURES = 20
RETRY_S = 0.2


class Kind(NamedTuple):
    """One sort of request as it goes over the wire, and the status it must get. `weight` is its share."""

    name: str
    request: bytes
    status: int
    weight: int


class Tally:
    """What all callers together have seen. Of failures the first few are kept as they were."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failed = 0
        self.failures: list[str] = []
        self.hung_up = 0

    @property
    def requests(self) -> int:
        return self.answered.total() + self.failed + self.hung_up

    def fail(self, what: str) -> None:
        self.failed += 1
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(what)


def hot_kinds(model: str = "digits") -> list[Kind]:
    """Both hot routes of a model that takes 8x8 grey pictures."""
    tensor = np.linspace(-1, 1, 64, dtype="<f4")
    head = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}]}
    told = json.dumps({"inputs": [{**head["inputs"][0], "data": tensor.tolist()}]}).encode()
    declared = {"inputs": [{**head["inputs"][0], "parameters": {"binary_data_size": tensor.nbytes}}]}
    binary = json.dumps({**declared, "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}).encode()
    picture = simplejpeg.encode_jpeg(np.full((16, 16, 3), 90, np.uint8), quality=90)
    infer, predict = f"/v2/models/{model}/infer", f"/v1/predict/{model}"
    length = {"Inference-Header-Content-Length": str(len(binary))}
    return [
        Kind("infer, JSON", _post(infer, told, {"Content-Type": "application/json"}), 200, 20),
        Kind("infer, binary", _post(infer, binary + tensor.tobytes(), length), 200, 50),
        Kind("predict", _post(predict, picture, {"Content-Type": "image/jpeg"}), 200, 20),
    ]


def all_kinds(model: str = "digits") -> list[Kind]:
    """The hot routes, what tells of the node, and callers who err."""
    infer, predict = f"/v2/models/{model}/infer", f"/v1/predict/{model}"
    tensor = struct.pack("<f", 0.5) * 64
    return [
        *hot_kinds(model),
        Kind("healthz", _get("/healthz"), 200, 2),
        Kind("metadata", _get(f"/v2/models/{model}"), 200, 1),
        Kind("statistics", _get("/v2/models/stats"), 200, 1),
        Kind("no such model", _post("/v2/models/nobody/infer", b"{}", {}), 404, 1),
        Kind("no such route", _get("/v3"), 404, 1),
        Kind("no JSON", _post(infer, b'{"inputs": [', {}), 400, 1),
        Kind("another shape", _post(infer, _shaped([1, 1, 4, 16]), {}), 400, 1),
        Kind("no picture", _post(predict, tensor, {"Content-Type": "image/png"}), 400, 1),
        Kind("no number", _post(predict, b"", {"Content-Type": "image/png", "Foothill-Deadline-Ms": "soon"}), 400, 1),
    ]


class Talk(NamedTuple):
    """What a caller may ask, and where it notes what became of it. It goes on while `more` says so."""

    kinds: Sequence[Kind]
    tally: Tally
    rng: random.Random
    more: Callable[[], bool]

    def next(self) -> Kind:
        return self.rng.choices(self.kinds, [kind.weight for kind in self.kinds])[0]


async def call(talk: Talk, url: str, *, per_connection: int) -> None:
    """One closed loop: the next request when the last is answered. Every `per_connection` requests it connects anew."""
    host, port = address(url)
    while talk.more():
        connection = _Connection(talk, per_connection)
        try:
            await asyncio.get_running_loop().create_connection(partial(_itself, connection), host, port)
            await connection.done
        except OSError as error:
            talk.tally.fail(f"connecting: {error}")
            await asyncio.sleep(RETRY_S)
        finally:
            connection.close()


def _itself(connection: _Connection) -> _Connection:
    return connection


class _Connection(asyncio.Protocol):
    def __init__(self, talk: Talk, requests: int) -> None:
        self._talk = talk
        self._left = requests
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._asked = talk.kinds[0]
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head = self._received.find(_HEAD_END) + len(_HEAD_END)
        if head < len(_HEAD_END):
            return
        length = _LENGTH.search(self._received, 0, head)
        if length is not None and len(self._received) >= head + int(length.group(1)):
            self._note(int(self._received[9:12]))
            self._ask()
        elif length is None:
            self._end(f"{self._asked.name}: an answer of no known length: {self._received[:300]!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"{self._asked.name}: the connection was lost: {error or 'closed by the server'}")

    def _ask(self) -> None:
        if not self._left or not self._talk.more():
            self._end("")
            return
        assert self._transport is not None
        self._left -= 1
        self._asked, self._received = self._talk.next(), b""
        self._transport.write(self._asked.request)

    def _note(self, status: int) -> None:
        if status == self._asked.status:
            self._talk.tally.answered[self._asked.name] += 1
        else:
            said = self._received.partition(_HEAD_END)[2][:300].decode(errors="replace")
            self._talk.tally.fail(f"{self._asked.name}: {status} instead of {self._asked.status}: {said}")

    def _end(self, failure: str) -> None:
        if self.done.done():
            return
        if failure:
            self._talk.tally.fail(failure)
        self.done.set_result(None)


async def hang_up(talk: Talk, url: str) -> None:
    """A caller that goes away at any point: in its head, in its body, before its answer, in the midst of it."""
    host, port = address(url)
    while talk.more():
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            request = talk.next().request
            writer.write(request[: talk.rng.randint(1, len(request))])
            await writer.drain()
            if talk.rng.random() < 0.5:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader.read(20), 0.01)
            writer.transport.abort()
            talk.tally.hung_up += 1
        await asyncio.sleep(0.002)


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: node\r\n\r\n".encode()


def _post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: node", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def _shaped(shape: list[int]) -> bytes:
    return json.dumps({"inputs": [{"name": "image", "shape": shape, "datatype": "FP32", "data": [0.5] * 64}]}).encode()
