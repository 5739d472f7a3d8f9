"""What a node fetches from a fleet, over real HTTP: TUF files and blobs, and the ways that networks fail."""

from __future__ import annotations

import re
import ssl
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from contracts.manifest import digest_of

Fault = Callable[[web.Request, bytes], "web.StreamResponse | None"]


class FleetServer:
    """Serves `directory` under /tuf/, and `blobs` under /v1/blobs/.

    `cut_after[digest]` lists, for the next requests of one blob, after how many bytes the connection is reset;
    `status[digest]` answers that status; `lies[digest]` are served in its place; `ranges` False ignores Range;
    `etags[digest]` are those of one answer after another; `total` is told as the length of the whole in its place.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs: dict[str, bytes] = {}
        self.cut_after: defaultdict[str, deque[int]] = defaultdict(deque)
        self.status: defaultdict[str, deque[int]] = defaultdict(deque)
        self.lies: dict[str, bytes] = {}
        self.endless: set[str] = set()
        self.ranges = True
        self.etags: dict[str, list[str]] = {}
        self.total = 0
        self.asked: list[tuple[str, str]] = []
        app = web.Application()
        app.router.add_get("/tuf/{path:.+}", self._tuf)
        app.router.add_get("/v1/blobs/{digest}", self._blob)
        self._server = TestServer(app)

    def add_blob(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    async def start(self, tls: ssl.SSLContext | None = None) -> str:
        await self._server.start_server(ssl=tls)
        return str(self._server.make_url("/")).rstrip("/")

    async def stop(self) -> None:
        await self._server.close()

    async def _tuf(self, request: web.Request) -> web.StreamResponse:
        path = self.directory / request.match_info["path"]
        self.asked.append((request.path, ""))
        if not path.is_file():
            raise web.HTTPNotFound
        return web.Response(body=path.read_bytes())

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        wanted = request.headers.get("Range", "")
        self.asked.append((digest, wanted))
        if self.status[digest]:
            return web.Response(status=self.status[digest].popleft())
        if digest not in self.blobs:
            raise web.HTTPNotFound
        data = self.lies.get(digest, self.blobs[digest])
        etag = self.etags[digest].pop(0) if self.etags.get(digest) else ""
        changed = request.headers.get("If-Range", etag) != etag
        start = 0 if changed else self._start(wanted)
        if start > len(data):
            return web.Response(status=416)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{self.total or len(data)}"} if start else {}
        headers |= {"ETag": etag} if etag else {}
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await self._send(request, response, digest, data[start:])
        return response

    def _start(self, wanted: str) -> int:
        found = re.fullmatch(r"bytes=([0-9]+)-", wanted)
        return int(found.group(1)) if found and self.ranges else 0

    async def _send(self, request: web.Request, response: web.StreamResponse, digest: str, data: bytes) -> None:
        if self.cut_after[digest]:
            await response.write(data[: self.cut_after[digest].popleft()])
            assert request.transport is not None
            request.transport.close()
            return
        await response.write(data)
        while digest in self.endless:
            await response.write(b"\0" * 65536)
        await response.write_eof()
