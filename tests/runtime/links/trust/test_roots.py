from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from contracts.errors import FoothillError
from runtime.links.http.upstream import Upstreams
from runtime.links.trust.roots import pinned_root
from tests.runtime.links.tuf_repository import TufRepository

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ServeHandler = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    upstreams = Upstreams()
    yield upstreams
    await upstreams.close()


def answering(body: bytes, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return handler


async def test_the_first_root_seen_is_pinned_and_a_later_one_is_not_believed(
    tmp_path: Path, serve_handler: ServeHandler, upstreams: Upstreams
) -> None:
    first = TufRepository(tmp_path / "first").root_bytes
    other = TufRepository(tmp_path / "other").root_bytes
    state = tmp_path / "state" / "router"
    assert await pinned_root(None, state, await serve_handler(answering(first)), upstreams) == first
    assert await pinned_root(None, state, await serve_handler(answering(other)), upstreams) == first


async def test_a_named_root_asks_nobody(tmp_path: Path, closed_url: str, upstreams: Upstreams) -> None:
    (tmp_path / "named.json").write_bytes(b"as it is")
    assert await pinned_root(tmp_path / "named.json", tmp_path, closed_url, upstreams) == b"as it is"
    with pytest.raises(FoothillError, match="json cannot be read"):
        await pinned_root(tmp_path / "nowhere.json", tmp_path, closed_url, upstreams)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [(b"", 404, "answered HTTP 404"), (b"<html>", 200, "is no root metadata"), (b"{}", 200, "is no root metadata")],
)
async def test_what_is_no_root_is_never_pinned(
    tmp_path: Path, serve_handler: ServeHandler, upstreams: Upstreams, body: bytes, status: int, says: str
) -> None:
    url = await serve_handler(answering(body, status))
    with pytest.raises(FoothillError, match=says) as refused:
        await pinned_root(None, tmp_path, url, upstreams, clock=time.monotonic)
    assert refused.value.retryable
    assert not (tmp_path / "root.json").exists()


async def test_a_root_that_nobody_signed_is_never_pinned(
    tmp_path: Path, serve_handler: ServeHandler, upstreams: Upstreams
) -> None:
    altered = json.loads(TufRepository(tmp_path / "repository").root_bytes)
    altered["signed"]["version"] += 1
    url = await serve_handler(answering(json.dumps(altered).encode()))
    with pytest.raises(FoothillError, match="is no root metadata"):
        await pinned_root(None, tmp_path, url, upstreams)


async def test_a_fleet_that_is_away_is_said_to_be(tmp_path: Path, closed_url: str, upstreams: Upstreams) -> None:
    with pytest.raises(FoothillError, match="Start the fleet manager"):
        await pinned_root(None, tmp_path, closed_url, upstreams)
