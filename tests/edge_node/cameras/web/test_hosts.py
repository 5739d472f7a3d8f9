"""Pictures are shown by names that nobody could have made up for this machine."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.web.hosts import is_known, known_hosts
from runtime.links.http.errors import error_middleware
from runtime.links.http.serve import start_app

NAMES = frozenset({"cams.example.com", "box17"})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8100",
        "10.0.0.7",
        "[::1]:8100",
        "[fe80::1]",
        "localhost:8100",
        "LOCALHOST",
        "edge-node:8100",
        "box.local",
        "box.lan:80",
        "box.home.arpa.",
        "app.localhost",
        "cams.example.com",
        "Cams.Example.com:443",
    ],
)
def test_addresses_local_names_and_names_that_were_allowed_are_known(host: str) -> None:
    assert is_known(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8100",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:8100",
        "example.com",
        "a.cams.example.com",
        "cams.example.com.evil.example",
        "local.evil.example",
        "evil-local.example",
        "1.2.3.4.5",
    ],
)
def test_whatever_somebody_can_register_is_not(host: str) -> None:
    assert not is_known(host, NAMES)


@given(st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,3}\.(com|org|example|io)(:[0-9]{1,5})?", fullmatch=True))
def test_no_name_under_a_public_suffix_is_known(host: str) -> None:
    assert not is_known(host, frozenset())


async def test_only_the_routes_of_cameras_ask_for_it() -> None:
    async def told(_: web.Request) -> web.Response:
        return web.Response(text="told")

    app = web.Application(middlewares=[error_middleware("fra"), known_hosts(["cams.example.com"], "box.example.com")])
    app.add_routes([web.get(path, told) for path in ("/cameras", "/v1/cameras", "/healthz")])
    runner, url = await start_app(app, "127.0.0.1", 0, name="fra", drain_s=1.0)
    try:
        async with aiohttp.ClientSession(url) as session:

            async def status(path: str, host: str) -> tuple[int, str]:
                async with session.get(path, headers={"Host": host}) as answer:
                    return answer.status, await answer.text()

            assert (await status("/healthz", "evil.example"))[0] == 200
            for path in ("/cameras", "/v1/cameras"):
                for host in ("cams.example.com", "box.example.com", "127.0.0.1:1"):
                    assert (await status(path, host)) == (200, "told")
                code, body = await status(path, "evil.example:8100")
                assert code == 403
                assert "allowed_hosts" in body
    finally:
        await runner.cleanup()
