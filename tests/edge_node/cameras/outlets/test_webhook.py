"""What a server of the operator's hears of cameras: everything, in its order, through whatever befalls it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import ssl
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from contracts.camera_events import CountsMessage, PictureEvent
from edge_node.cameras.feed import Feed
from edge_node.cameras.outlets import webhook as outlet
from edge_node.cameras.outlets.backlog import MOST_MESSAGES, MOST_WAITING, Backlog
from edge_node.cameras.outlets.journal import Journal
from edge_node.cameras.outlets.webhook import SIGNATURE, Webhook, headers_of, patience_s
from edge_node.cameras.outlets.webhook_config import Secrets, WebhookConfig
from runtime.links.trust.tls import SYSTEM, TlsConfig
from tests.runtime.links.certificates import Authority

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]
SECRET_PATH = "/hooks/T0-very-secret"


class Server:
    """Answers each POST as the next of `answers` says, and with 204 once they are used up. `heard` is what it took."""

    def __init__(self) -> None:
        self.answers: deque[int | Answering] = deque()
        self.heard: list[dict[str, Any]] = []
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{SECRET_PATH}"

    @property
    def sequences(self) -> list[int]:
        return [message["sequence"] for message in self.heard]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.posts.append((dict(request.headers), body))
        answer = self.answers.popleft() if self.answers else 204
        if not isinstance(answer, int):
            return await answer(request)
        if answer < 300:
            self.heard += json.loads(body)
        return web.Response(status=answer)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def feed() -> Feed:
    return Feed("fra", 1)


class Told:
    """A webhook, started and stopped. `journal` None: of no earlier life, and for no later one."""

    def __init__(
        self,
        feed: Feed,
        url: str,
        *,
        timeout_s: float = 0.5,
        tls: TlsConfig = SYSTEM,
        journal: Path | None = None,
        most: int = MOST_WAITING,
        **keys: Any,
    ):
        self._directory = tempfile.TemporaryDirectory()
        config = msgspec.convert({"url": url, **keys}, WebhookConfig)
        backlog = Backlog(Journal(journal or Path(self._directory.name) / "webhook.db"), most)
        self.webhook = Webhook(
            config,
            feed,
            backlog,
            rng=random.Random(1),
            longest_pause_s=0.05,
            timeout_s=timeout_s,
            wall=lambda: 1.8e9,
            tls=tls,
        )

    async def __aenter__(self) -> Webhook:
        await self.webhook.start()
        return self.webhook

    async def __aexit__(self, *_: object) -> None:
        await self.webhook.stop()
        self._directory.cleanup()


def say(feed: Feed, count: int, camera: str = "door") -> None:
    for number in range(count):
        feed.say(PictureEvent, camera, float(number), event=f"e{number}", phase="start", label="7")


async def until(true: Callable[[], Any]) -> None:
    async def wait() -> None:
        while not true():  # noqa: ASYNC110 - a server that hears has no event for a test
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 20)


async def test_messages_come_in_order_many_in_one_post(server: Server, feed: Feed) -> None:
    async with Told(feed, server.url) as webhook:
        say(feed, 1000)
        await until(lambda: len(server.heard) == 1000)
        assert server.sequences == list(range(1, 1001))
        assert len(server.posts) == 1000 / MOST_MESSAGES
        assert webhook.dropped == 0
    headers, _ = server.posts[0]
    assert headers["Content-Type"] == "application/json"
    assert SIGNATURE not in headers
    assert "Authorization" not in headers


async def test_nothing_is_lost_or_comes_out_of_turn_while_it_fails_stalls_and_comes_back(
    server: Server, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def stall(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def send_elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    server.answers.extend([500, 503, stall, 429, hang_up, 408, 425, send_elsewhere, 502])
    async with Told(feed, server.url) as webhook:
        say(feed, 250)
        await until(lambda: len(server.heard) == 250)
        await server.stop()
        say(feed, 250)
        await asyncio.sleep(0.2)
        await server.start()
        await until(lambda: len(server.heard) == 500)
        assert webhook.dropped == 0
    assert server.sequences == list(range(1, 501))
    assert {body for _, body in server.posts[:10]} == {server.posts[0][1]}
    assert "trying again" in caplog.text
    assert caplog.text.count("taken again") == 2
    assert "very-secret" not in caplog.text


async def test_what_it_refuses_is_dropped_and_counted_and_the_rest_goes_on(
    server: Server, feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers.extend([400, 400])
    async with Told(feed, server.url) as webhook:
        say(feed, 3 * MOST_MESSAGES)
        await until(lambda: len(server.heard) == MOST_MESSAGES)
        assert server.sequences == list(range(2 * MOST_MESSAGES + 1, 3 * MOST_MESSAGES + 1))
        assert webhook.dropped == 2 * MOST_MESSAGES
    assert caplog.text.count("status 400") == 1


async def test_it_waits_as_long_as_it_is_asked_to(server: Server, feed: Feed) -> None:
    asked_s: list[float] = []

    async def later(_: web.Request) -> web.StreamResponse:
        asked_s.append(asyncio.get_running_loop().time())
        return web.Response(status=503, headers={"Retry-After": "1"})

    server.answers.append(later)
    async with Told(feed, server.url):
        say(feed, 1)
        await until(lambda: server.heard)
        assert asyncio.get_running_loop().time() - asked_s[0] >= 1.0


async def test_while_it_is_away_the_oldest_give_way_and_are_counted(server: Server, feed: Feed) -> None:
    await server.stop()
    async with Told(feed, server.url, most=300) as webhook:
        say(feed, 50)
        await asyncio.sleep(0.1)
        say(feed, 350)
        await server.start()
        await until(lambda: len(server.heard) == 350)
        assert server.sequences == [*range(1, 51), *range(101, 401)]
        assert webhook.dropped == 50


async def test_what_nobody_took_before_the_end_is_told_by_the_next_life(
    server: Server, feed: Feed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outlet, "_LAST_WORDS_S", 0.2)
    await server.stop()
    journal = tmp_path / "outlets" / "webhook.db"
    async with Told(feed, server.url, journal=journal) as webhook:
        say(feed, 150)
    assert webhook.dropped == 0
    assert "150 messages were not taken before the end: 150 wait for the next start" in caplog.text
    later = Feed("fra", 2)
    async with Told(later, server.url, journal=journal, most=100) as webhook:
        say(later, 30)
        assert webhook.dropped == 80
    await server.start()
    async with Told(Feed("fra", 3), server.url, journal=journal):
        await until(lambda: len(server.heard) == 100)
    async with Told(Feed("fra", 4), server.url, journal=journal):
        pass
    assert [(told["epoch"], told["sequence"]) for told in server.heard] == [
        *((1, number) for number in range(81, 151)),
        *((2, number) for number in range(1, 31)),
    ]


async def test_what_neither_server_nor_disk_took_is_counted_as_lost(
    server: Server, feed: Feed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outlet, "_LAST_WORDS_S", 0.3)
    await server.stop()
    (tmp_path / "outlets").write_text("in the way")
    async with Told(feed, server.url, journal=tmp_path / "outlets" / "webhook.db") as webhook:
        say(feed, 150)
    assert webhook.dropped == 150
    assert "0 wait for the next start, 150 are lost" in caplog.text
    assert caplog.text.count("what waits is in memory alone") == 1


async def test_what_was_just_said_is_told_before_the_end(server: Server, feed: Feed) -> None:
    async with Told(feed, server.url):
        say(feed, 150)
    assert server.sequences == list(range(1, 151))


async def test_only_what_was_chosen_is_told(server: Server, feed: Feed) -> None:
    async with Told(feed, server.url, cameras=["door"], types=["picture"]):
        say(feed, 1, "yard")
        feed.say(CountsMessage, "door", 1.0)
        say(feed, 1, "door")
    assert [(message["camera"], message["type"]) for message in server.heard] == [("door", "picture")]


async def test_it_shows_its_token_and_signs_and_takes_new_ones_without_a_restart(
    server: Server, feed: Feed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, secret = tmp_path / "token", tmp_path / "secret"
    secret.write_text("key one\n")
    async with Told(feed, server.url, token_file=str(token), secret_file=str(secret)):
        say(feed, 1)
        await asyncio.sleep(0.1)
        assert server.posts == []
        token.write_text("token one\n")
        await until(lambda: len(server.heard) == 1)
        secret.write_text("key two\n")
        say(feed, 1)
        await until(lambda: len(server.heard) == 2)
    for key, (headers, body) in zip((b"key one", b"key two"), server.posts, strict=True):
        stamp, signature = (part.partition("=")[2] for part in headers[SIGNATURE].split(","))
        assert stamp == "1800000000"
        assert signature == hmac.new(key, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        assert headers["Authorization"] == "Bearer token one"
    assert "token_file" in caplog.text
    assert "token one" not in caplog.text
    assert "key one" not in caplog.text


async def test_a_server_with_tls_is_believed_by_its_authority_alone(
    feed: Feed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path, "authority")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server"))
    server = Server()
    await server.start(context)
    url = server.url.replace("http:", "https:")
    async with Told(feed, url, timeout_s=5.0):
        say(feed, 1)
        await until(lambda: "tls.ca_file" in caplog.text)
    assert server.posts == []
    async with Told(feed, url, timeout_s=5.0, tls=TlsConfig(ca_file=str(authority.file))):
        say(feed, 1)
        await until(lambda: server.heard)
    await server.stop()


@pytest.mark.parametrize("breaks", [False, True])
async def test_an_answer_that_hangs_or_breaks_after_its_status_counts_and_nothing_comes_twice(
    server: Server, feed: Feed, breaks: bool
) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        server.heard += json.loads(await request.read())
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        if breaks and request.transport is not None:
            request.transport.close()
        await asyncio.sleep(20)
        return response

    server.answers += [hang, hang]
    async with Told(feed, server.url, timeout_s=3.0) as webhook:
        for number in range(1, 4):
            say(feed, 1)
            await until(lambda: len(server.heard) >= number)  # noqa: B023
        assert server.sequences == [1, 2, 3]
        assert webhook.dropped == 0


async def test_an_endless_answer_holds_nobody_up(server: Server, feed: Feed) -> None:
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    server.answers.append(pour)
    async with Told(feed, server.url, timeout_s=10.0) as webhook:
        say(feed, 1)
        await until(lambda: sent)
        say(feed, 1)
        await until(lambda: server.heard)
        assert server.sequences == [2]
        assert webhook.dropped == 0
        await asyncio.sleep(0.1)
        assert sent < 64 << 20


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("", 0),
        ("7", 7),
        ("x", 0),
        ("-1", 0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
    ],
)
def test_patience_is_asked_for_in_seconds_or_by_a_date(told: str, seconds: float) -> None:
    assert patience_s(told, 1_800_000_000.0) == seconds


def test_a_signature_is_what_is_published_of_stripes_scheme() -> None:
    headers = headers_of(b"[]", Secrets("", "whsec"), 12.9)
    assert headers[SIGNATURE] == "t=12,v1=" + hmac.new(b"whsec", b"12.[]", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"url": "ftp://a/"}, "https://HOST"),
        ({"url": "https://"}, "https://HOST"),
        ({"url": "https://a:x/"}, "https://HOST"),
        ({"url": "https://a/\r\nX: y"}, "https://HOST"),
        ({"url": "https://user:word@a/"}, "token_env"),
        ({"url": "http://10.0.0.1/"}, "insecure"),
        ({"url": "https://a/", "token_env": "A", "token_file": "b"}, "one too many"),
        ({"url": "https://a/", "types": ["tracks"]}, "tracks"),
    ],
)
def test_keys_that_make_no_sense_are_refused_in_words(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=told) as refused:
        msgspec.convert(keys, WebhookConfig)
    assert "word" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize("keys", [{"url": "http://127.0.0.1:8/"}, {"url": "http://10.0.0.1/", "insecure": True}])
def test_plain_http_is_for_this_machine_and_for_who_insists(keys: dict[str, Any]) -> None:
    assert msgspec.convert(keys, WebhookConfig).origin in keys["url"]


@pytest.mark.parametrize("environment", [{}, {"HOOK": ""}, {"HOOK": "a\nb"}])
def test_a_token_that_is_not_there_is_no_empty_one(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="token"):
        WebhookConfig("https://a/", token_env="HOOK").secrets(environment)
