"""Contents by HTTP, each from the byte on that an earlier attempt has reached, over broken connections."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aiohttp

from contracts.errors import FoothillError
from contracts.manifest import File
from runtime.links.bundles.fetch import Way, Ways
from runtime.links.bundles.store import BundleStore, size_of
from runtime.links.chunks.file import leave_prefix
from runtime.links.process.disk import Writing
from runtime.links.trust.tls import SYSTEM, TlsConfig, TlsFilesError, client_context, is_tls, told

RETRY_DELAYS_S = (0.1, 0.3, 1.0, 3.0)
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=30)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


def http_ways(fleet_url: str, *, retry_delays_s: Sequence[float] = RETRY_DELAYS_S, tls: TlsConfig = SYSTEM) -> Ways:
    """The fleet's `/v1/blobs`, over one pool of connections a bundle."""
    return partial(_open, fleet_url.rstrip("/"), retry_delays_s, tls)


@asynccontextmanager
async def _open(fleet_url: str, retry_delays_s: Sequence[float], tls: TlsConfig) -> AsyncIterator[Way]:
    connector = aiohttp.TCPConnector(ssl=await aiohttp_tls(fleet_url, tls))
    async with aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False, connector=connector) as session:
        yield _HttpWay(session, fleet_url, retry_delays_s)


async def aiohttp_tls(url: str, tls: TlsConfig) -> ssl.SSLContext | bool:
    """For aiohttp's connector, the files read now. Raises FoothillError `unavailable` when they cannot be used."""
    if not url.startswith("https:"):
        return True
    try:
        return await asyncio.to_thread(client_context, tls)
    except TlsFilesError as error:
        raise FoothillError("unavailable", f"{error}. Correct the path, or the file.") from error


class Unreachable(FoothillError):  # noqa: N818 - it names a state of the world, not a mistake
    """No answer comes from the registry; another way may lead to it."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class _HttpWay:
    def __init__(self, session: aiohttp.ClientSession, fleet_url: str, retry_delays_s: Sequence[float]) -> None:
        self._session = session
        self._fleet_url = fleet_url
        self._delays = retry_delays_s

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        url = f"{self._fleet_url}/v1/blobs/{file.sha256}"
        await _Transfer(self._session, store, url, file, told, self._delays).run()


class _Interrupted(Exception):  # noqa: N818 - never leaves this file
    """The transfer broke; what came stays, and the next attempt goes on from there."""


class _Transfer:
    """One content on its way into the store."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        store: BundleStore,
        url: str,
        file: File,
        told: Callable[[int], None],
        retry_delays_s: Sequence[float],
    ) -> None:
        self._session = session
        self._store = store
        self._url = url
        self._file = file
        self._partial = store.partial(file.sha256)
        self._told = told
        self._delays = retry_delays_s
        self._etag = ""

    async def run(self) -> None:
        """Attempts with growing pauses; one that came further than all before starts the count again."""
        await asyncio.to_thread(leave_prefix, self._store, self._file)
        failures, furthest = 0, size_of(self._partial)
        while (error := await self._attempt()) is not None:
            if (have := size_of(self._partial)) > furthest:
                failures, furthest = 0, have
            if failures == len(self._delays):
                raise self._gave_up(error) from error
            await asyncio.sleep(self._delays[failures])
            failures += 1

    async def _attempt(self) -> Exception | None:
        """What broke the transfer, or None when all bytes are here."""
        try:
            await self._receive()
        except (_Interrupted, aiohttp.ClientError, asyncio.TimeoutError) as error:
            return error
        return None

    async def _receive(self) -> None:
        """One request for what is missing. Raises _Interrupted when it ended too early."""
        have = self._usable_start()
        if have == self._file.bytes and self._partial.exists():
            return
        async with self._session.get(self._url, headers=self._asking(have)) as response:
            start = self._start_of(response.status, response.headers, have)
            self._note_etag(response.headers)
            await self._write(response.content.iter_any(), start)
        if size_of(self._partial) < self._file.bytes:
            raise _Interrupted("the answer ended too early")

    def _asking(self, have: int) -> dict[str, str]:
        """RFC 9110, 13.1.5: a server whose content is another by now answers with all of it."""
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._etag:
                headers["If-Range"] = self._etag
        return headers

    def _note_etag(self, headers: Mapping[str, str]) -> None:
        """A weak one promises too little for a range."""
        etag = headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag

    def _usable_start(self) -> int:
        have = size_of(self._partial)
        if have > self._file.bytes:
            self._drop()
            return 0
        return have

    def _start_of(self, status: int, headers: Mapping[str, str], have: int) -> int:
        if status == 206 and have:
            found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if found and int(found.group(1)) == have and found.group(2) in ("*", str(self._file.bytes)):
                return have
        if status == 200:
            self._check_length(headers)
            return 0
        if status in (206, 416):
            self._drop()
            raise _Interrupted(f"HTTP {status} does not fit the {have} bytes at hand; starting over")
        if status >= 500 or status == 429:
            raise _Interrupted(f"HTTP {status}")
        raise FoothillError(
            "not_found" if status == 404 else "upstream_failed",
            f"{self._url} answered HTTP {status}. Is the bundle published in full?",
        )

    def _check_length(self, headers: Mapping[str, str]) -> None:
        told = headers.get("Content-Length", "")
        if told.isdecimal() and int(told) > self._file.bytes:
            raise self._too_much()

    def _drop(self) -> None:
        if self._partial.exists():
            self._store.disk.unlink(self._partial)

    async def _write(self, chunks: AsyncIterator[bytes], start: int) -> None:
        # Not in a thread: what has arrived when the connection breaks is lost unless it is read at once.
        file = self._store.disk.open(self._partial, at=start)
        try:
            await self._copy(chunks, file, start)
        finally:
            file.close()

    async def _copy(self, chunks: AsyncIterator[bytes], file: Writing, at: int) -> None:
        async for chunk in chunks:
            before, at = at, at + len(chunk)
            if at > self._file.bytes:
                self._drop()
                raise self._too_much()
            await asyncio.to_thread(file.write, chunk)
            if before // self._store.sync_bytes != at // self._store.sync_bytes:
                await asyncio.to_thread(self._make_safe, file)
            self._told(at)

    def _make_safe(self, file: Writing) -> None:
        """What a power cut leaves is then whole up to here; and who else fills the disk is noticed."""
        file.sync()
        self._store.disk.sync_directory(self._partial.parent)
        self._store.check_reserve()

    def _too_much(self) -> FoothillError:
        return FoothillError("bad_bundle", f"{self._url} sends more than the {self._file.bytes} bytes that are signed.")

    def _gave_up(self, error: Exception) -> FoothillError:
        message = (
            f"{self._url} could not be fetched: {told(error)}. {size_of(self._partial)} of {self._file.bytes} bytes "
            f"are kept, and the next attempt goes on from there."
        )
        answered = isinstance(error, _Interrupted) or is_tls(error)
        return FoothillError("unavailable", message) if answered else Unreachable(message)
