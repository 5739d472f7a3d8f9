"""The engines of the fleet: found by their ONNX file, believed by the fleet's signature, fetched, offered."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from contracts.decoding import UNREADABLE
from contracts.engines import Endorsement, EngineRecord
from contracts.errors import KINDS, ErrorBody, FoothillError
from contracts.headers import ENGINE
from contracts.messages import Signed, decode, encode
from runtime.links.bundles.blob_http import aiohttp_tls
from runtime.links.trust import signatures
from runtime.links.trust.tls import SYSTEM, TlsConfig, told

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 4 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=60)
_CHUNK_BYTES = 1 << 20

Keys = Callable[[], Mapping[str, str]]
"""Key id to public key (hex) of those who may vouch for engines; may ask the fleet, so it blocks."""


class SharedEngine(NamedTuple):
    """An engine that the fleet vouches for, as it travels."""

    envelope: Signed
    record: EngineRecord


class EngineRegistry:
    """One fleet's engines. `keys` are its control keys for engines."""

    def __init__(self, fleet_url: str, keys: Keys, tls: TlsConfig = SYSTEM) -> None:
        self._url = f"{fleet_url.rstrip('/')}/v1/engines"
        self._keys = keys
        self._tls = tls

    async def find(self, onnx: str) -> list[SharedEngine]:
        """Engines of an ONNX file whose signatures are good. Raises FoothillError `unavailable`."""
        async with (
            self._session() as session,
            _answering(self._url),
            session.get(self._url, params={"onnx": onnx}) as answer,
        ):
            data = await _checked(answer)
        keys = await asyncio.to_thread(self._keys)
        found = [_opened(envelope, keys) for envelope in _envelopes(data)]
        return [one for one in found if one is not None and one.record.onnx == onnx]

    async def fetch(self, record: EngineRecord, path: Path) -> None:
        """Writes the engine to `path`; its digest is for the store to check. Raises FoothillError."""
        url, size = f"{self._url}/{record.engine}", 0
        async with self._session() as session, _answering(url), session.get(url) as answer:
            if answer.status != 200:
                await _checked(answer)
            with path.open("wb") as file:
                async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > record.bytes:
                        raise FoothillError("bad_bundle", f"{url} sends more than the {record.bytes} bytes signed.")
                    await asyncio.to_thread(file.write, chunk)

    async def offer(self, envelope: Signed, path: Path) -> None:
        """Sends an engine with its record, signed by this node. Raises the fleet's own FoothillError."""
        record = decode(envelope.payload, EngineRecord)
        url, headers = f"{self._url}/{record.engine}", {ENGINE: base64.b64encode(encode(envelope)).decode()}
        with path.open("rb") as file:
            async with (
                self._session() as session,
                _answering(url),
                session.put(url, data=file, headers=headers) as answer,
            ):
                await _checked(answer)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=await aiohttp_tls(self._url, self._tls))
        async with aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False, connector=connector) as session:
            yield session


def open_endorsed(signed: Signed, keys: Mapping[str, str]) -> EngineRecord:
    """The record that the fleet vouches for. Raises FoothillError `forbidden`."""
    return signatures.verify(signed, keys, Endorsement).record


def _opened(envelope: bytes, keys: Mapping[str, str]) -> SharedEngine | None:
    try:
        signed = decode(envelope, Signed)
        return SharedEngine(signed, open_endorsed(signed, keys))
    except FoothillError as error:
        log.warning("an engine of the fleet is passed over: %s", error.message)
        return None


def _envelopes(data: bytes) -> list[bytes]:
    try:
        return msgspec.json.decode(data, type=list[bytes])
    except UNREADABLE as error:
        raise FoothillError("upstream_failed", f"The fleet's list of engines cannot be read: {error}.") from error


async def _checked(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body of a success; raises the fleet's error of anything else."""
    data = await answer.content.read(MAX_ANSWER_BYTES)
    while more := await answer.content.read(MAX_ANSWER_BYTES + 1 - len(data)):
        data += more
    if len(data) > MAX_ANSWER_BYTES:
        raise FoothillError("upstream_failed", f"{answer.url} answers with more than {MAX_ANSWER_BYTES} bytes.")
    if answer.status in (200, 201):
        return data
    try:
        body = msgspec.json.decode(data, type=ErrorBody)
    except UNREADABLE:
        raise FoothillError("upstream_failed", f"{answer.url} answered HTTP {answer.status}.") from None
    raise FoothillError(body.code if body.code in KINDS else "upstream_failed", body.message, source=body.source)


@asynccontextmanager
async def _answering(url: str) -> AsyncIterator[None]:
    """Turns what the network does into FoothillError `unavailable`."""
    try:
        yield
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        raise FoothillError("unavailable", f"{url} cannot be reached: {told(error)}.") from error
