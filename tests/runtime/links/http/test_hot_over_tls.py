"""Hot routes behind TLS, on both event loops: records cut a caller's bytes anew, and are held back in their own way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop
from aiohttp import web

from runtime.links.http import hot_connection
from runtime.links.http.https import HttpsConfig, listener_context
from runtime.links.http.serve import start_app
from runtime.links.trust.tls import TlsConfig, client_context
from tests.runtime.links.certificates import Authority
from tests.runtime.links.http.test_hot_connection import KINDS, MOST_BYTES, Call, Echo, application, hot_of
from tests.runtime.raw_caller import RawCaller, post, until

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Served:
    """The echo with TLS, on an event loop and a thread of its own."""

    def __init__(self, authority: Authority, loop: asyncio.AbstractEventLoop) -> None:
        self.echo = Echo()
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever)
        self._thread.start()
        cert_file, key_file = map(str, authority.issue("node"))
        self.runner, self.url = self._do(self._start(HttpsConfig(cert_file, key_file)))

    def go(self) -> None:
        self._loop.call_soon_threadsafe(self.echo.go.set)

    def stop(self) -> None:
        self.go()
        self._do(self.runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, config: HttpsConfig) -> tuple[web.AppRunner, str]:
        tls = listener_context(config)
        return await start_app(application(self.echo), "127.0.0.1", 0, name="echo", drain_s=1.0, tls=tls)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture(params=LOOPS)
def served(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Served]:
    served = Served(authority, LOOPS[request.param]())
    yield served
    served.stop()


@pytest.fixture
async def call(served: Served, authority: Authority) -> AsyncIterator[Call]:
    callers: list[RawCaller] = []
    trust = client_context(TlsConfig(str(authority.file)))

    async def connect() -> RawCaller:
        callers.append(await RawCaller.connect(served.url, trust))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.vanish()


async def test_one_connection_serves_request_after_request(call: Call) -> None:
    caller = await call()
    for at, kind in enumerate(("hot", "hot", "cold", "hot", "slow", "early", "hot", "hot")):
        make, way = KINDS[kind]
        body = b"" if kind == "early" else b"%d" % at
        await caller.send(make("same", body))
        told = await caller.answer()
        assert (told.status, told.headers["Way"], told.body) == (200, way, body)


@pytest.mark.parametrize("pieces", [0, 1, 7, 1000])
async def test_what_is_sent_ahead_is_answered_in_order(call: Call, pieces: int) -> None:
    kinds = ["hot", "slow", "hot", "hot", "cold", "hot", "early", "slow", "hot"]
    sent = [KINDS[kind][0](f"n{at}", bytes([65 + at]) * (at * 37 % 211)) for at, kind in enumerate(kinds)]
    caller = await call()
    sending = asyncio.create_task(caller.send(b"".join(sent), pieces=pieces))
    for at, kind in enumerate(kinds):
        told = await caller.answer()
        assert (told.status, told.headers["Name"].removeprefix("slow-")) == (200, f"n{at}")
        assert told.body == (b"" if kind == "early" else bytes([65 + at]) * (at * 37 % 211))
    await sending


@pytest.mark.parametrize("pieces", [0, 1 << 10, (1 << 14) + 1])
async def test_a_large_body_comes_in_many_records_and_the_next_request_behind_it(call: Call, pieces: int) -> None:
    caller, body = await call(), bytes(range(256)) * (MOST_BYTES // 256)
    for name, way in (("a", "story"), ("awaited", "swift"), ("a", "story")):
        sending = asyncio.create_task(caller.send(post(f"/hot/{name}", body) + post("/hot/b", b"6"), pieces=pieces))
        told = await caller.answer()
        assert (told.status, told.headers["Way"], told.body == body) == (200, way, True)
        assert (await caller.answer()).body == b"6"
        await sending


async def test_what_is_sent_behind_a_request_under_way_is_held_back(call: Call, served: Served) -> None:
    caller, more = await call(), [post("/hot/a", bytes(1 << 16)) for _ in range(800)]
    await caller.send(post("/hot/wait-1", bytes(1 << 16)))
    await until(lambda: bool(served.echo.begun))
    sending = asyncio.create_task(caller.send(b"".join(more), pieces=1 << 16))
    hot = hot_of(served.runner)
    await until(lambda: hot._paused)
    assert hot._framing.held <= 2 * hot_connection._HELD_BYTES + (1 << 16)
    assert not sending.done()
    served.go()
    for _ in range(len(more) + 1):
        assert len((await caller.answer()).body) == 1 << 16
    await sending


async def test_a_caller_that_never_reads_is_answered_no_more_until_it_does(call: Call, served: Served) -> None:
    caller, count = await call(), 30
    await caller.send(b"".join(post(f"/hot/big-{at}") for at in range(count)))
    await until(lambda: bool(served.echo.answered))
    assert len(served.echo.answered) < count / 2
    for at in range(count):
        told = await caller.answer()
        assert (told.headers["Name"], len(told.body)) == (f"big-{at}", len(served.echo.big))


async def test_an_early_refusal_reaches_a_caller_that_still_writes(call: Call) -> None:
    caller = await call()
    await caller.send(post("/hot/deaf", bytes(4 * MOST_BYTES)))
    assert (await caller.answer()).status == 401
    await caller.send(post("/hot/b", b"6"))
    assert (await caller.answer()).body == b"6"


@pytest.mark.parametrize("how", ["vanishes", "closes"])
async def test_what_is_done_for_a_caller_that_is_gone_is_given_up_once(call: Call, served: Served, how: str) -> None:
    caller = await call()
    await caller.send(post("/hot/wait-1", b"1") + post("/hot/b", b"1"))
    await until(lambda: bool(served.echo.begun))
    if how == "vanishes":
        caller.vanish()
    else:
        await caller.close()
    await until(lambda: bool(served.echo.gone))
    assert (served.echo.begun, served.echo.gone, served.echo.answered) == (["wait-1"], ["wait-1"], [])
