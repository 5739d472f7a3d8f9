"""Listeners with TLS: their certificate, a change of it, and who is let in with one of his own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from contracts.deadlines import Deadline
from runtime.links.http.https import LOOK_AGAIN_S, HttpsConfig, listener_context
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Request, Upstreams, UpstreamUnreachable
from runtime.links.process.settings import SettingsError, load
from runtime.links.trust.tls import TlsConfig, own_context
from tests.runtime.links.certificates import Authority

Listen = Callable[..., Awaitable[str]]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
async def listen(clock: Clock) -> AsyncIterator[Listen]:
    runners: list[web.AppRunner] = []

    async def start(files: tuple[Path, Path], client_ca: Path | None = None) -> str:
        config = HttpsConfig(str(files[0]), str(files[1]), str(client_ca or ""))
        app = web.Application()
        app.router.add_get("/", hello)
        tls = listener_context(config, clock)
        runner, url = await start_app(app, "127.0.0.1", 0, name="node", drain_s=0.1, tls=tls)
        runners.append(runner)
        return url

    yield start
    for runner in runners:
        await runner.cleanup()


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def trusting(authority: Authority, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if client is not None:
        context.load_cert_chain(*client)
    return context


async def get(url: str, trust: ssl.SSLContext | None) -> str:
    upstreams = Upstreams(ssl=trust)
    try:
        deadline = Deadline.after(5000, now_s=time.monotonic())
        return (await upstreams.send(url, Request("GET", "/", {}), deadline=deadline)).body.decode()
    finally:
        await upstreams.close()


def get_blocking(url: str, trust: ssl.SSLContext) -> bytes:
    """What comes back on a bare socket; nothing for who is refused, which with TLS 1.3 shows when he reads."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        contextlib.suppress(ssl.SSLError, ConnectionError),
        trust.wrap_socket(plain, server_hostname=host) as tls,
    ):
        tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return tls.recv(100)
    return b""


async def serial(url: str, trust: ssl.SSLContext) -> str:
    """Of the certificate that a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
    told = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return str(told)


async def test_hops_reach_it_with_the_right_authority_only(
    authority: Authority, listen: Listen, tmp_path: Path
) -> None:
    url = await listen(authority.issue("node"))
    assert url.startswith("https://127.0.0.1:")
    assert await get(url, trusting(authority)) == "hello"
    for trust in (trusting(Authority(tmp_path, "stranger")), None):
        with pytest.raises(UpstreamUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await get(url, trust)
    with pytest.raises(UpstreamUnreachable):
        await get(url.replace("https", "http"), None)


async def test_clients_show_a_certificate_where_they_must(authority: Authority, listen: Listen, tmp_path: Path) -> None:
    url = await listen(authority.issue("node"), authority.file)
    own = trusting(authority, authority.issue("router"))
    assert await get(url, own) == "hello"
    assert b"200 OK" in await asyncio.to_thread(get_blocking, url, own)
    stranger = Authority(tmp_path, "stranger")
    for client in (None, stranger.issue("router2")):
        assert await asyncio.to_thread(get_blocking, url, trusting(authority, client)) == b""


async def test_a_new_certificate_is_shown_without_a_restart(authority: Authority, listen: Listen, clock: Clock) -> None:
    files = authority.issue("node")
    url, trust = await listen(files), trusting(authority)
    first = await serial(url, trust)
    for file, new in zip(files, authority.issue("node-new"), strict=True):
        os.replace(new, file)
    assert await serial(url, trust) == first
    clock.now_s += LOOK_AGAIN_S
    await serial(url, trust)
    assert await serial(url, trust) != first


async def test_a_broken_change_leaves_the_certificate_of_before(
    authority: Authority, listen: Listen, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    cert_file, key_file = authority.issue("node")
    url, trust = await listen((cert_file, key_file)), trusting(authority)
    first = await serial(url, trust)
    good = cert_file.read_bytes()
    for broken in (b"", b"-----BEGIN CERTIFICATE-----\nx", authority.issue("other")[0].read_bytes()):
        cert_file.write_bytes(broken)
        clock.now_s += LOOK_AGAIN_S
        assert [await serial(url, trust) for _ in range(3)] == [first] * 3
    assert len([record for record in caplog.records if "stays" in record.message]) == 3
    cert_file.write_bytes(good)
    clock.now_s += LOOK_AGAIN_S
    assert await get(url, trust) == "hello"


def test_without_a_certificate_there_is_no_tls() -> None:
    assert listener_context(HttpsConfig()) is None
    assert own_context(TlsConfig()) is None


async def test_what_a_node_trusts_and_shows_its_cloud_is_that_of_its_tls_table(
    authority: Authority, listen: Listen
) -> None:
    url = await listen(authority.issue("cloud"), authority.file)
    cert_file, key_file = map(str, authority.issue("frankfurt"))
    assert await get(url, own_context(TlsConfig(str(authority.file), cert_file, key_file))) == "hello"
    with pytest.raises(SettingsError, match="ca_file"):
        own_context(TlsConfig("gone"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('cert_file = "c"', "go together"),
        ('key_file = "k"', "go together"),
        ('client_ca_file = "a"', "needs cert_file"),
    ],
)
def test_half_a_configuration_is_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "https.toml").write_text(text)
    with pytest.raises(SettingsError, match=word):
        load(tmp_path / "https.toml", HttpsConfig)


def test_files_that_do_not_fit_are_named(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = map(str, authority.issue("node"))
    other = str(authority.issue("other")[1])
    locked = tuple(map(str, authority.issue("locked", password=b"secret")))
    (tmp_path / "empty").write_text("")
    for files in ((cert_file, other), (cert_file, "gone"), ("gone", key_file), (cert_file, cert_file), locked):
        with pytest.raises(SettingsError, match="no certificate chain"):
            listener_context(HttpsConfig(*files))
    for authorities in ("gone", str(tmp_path / "empty"), key_file):
        with pytest.raises(SettingsError, match="client_ca_file"):
            listener_context(HttpsConfig(cert_file, key_file, authorities))
