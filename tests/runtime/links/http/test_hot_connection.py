"""Hot routes and others on one connection: order, bounds, bodies that come in any way, and ends of every kind."""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from aiohttp import web

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.http import hot_connection, patience
from runtime.links.http.errors import error_middleware, refused
from runtime.links.http.exchanges import Body, Fixed, Incoming, Known, Outgoing, header_lines
from runtime.links.http.hot_connection import HotConnection
from runtime.links.http.hot_routes import HOT_ROUTES, Coming, Done, GiveUp, HotRoutes, Route, Shortcut, Turn
from runtime.links.http.protocol import Runner
from runtime.links.http.rendering import rendered
from runtime.links.http.serve import start_app
from runtime.links.http.through_aiohttp import handler
from tests.runtime.raw_caller import RawCaller, post, until

MOST_BYTES = 1 << 20


class Echo:
    """Answers with what it was sent, under `Way: swift` or `story`.

    A name begins with what is done: `wait` (until `go`), `slow` (by the story), `deaf` (refused before the body is
    read), `late` (waits before it reads), `big` (a large answer), `bad` (a line break in a header), `defect` (raises),
    `swift-defect` (raises at once).
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[str] = []
        self.awaited: list[str] = []
        self.prepared = 0
        self.gone: list[str] = []
        self.answered: list[str] = []
        self.handed_over: list[str] = []
        self.big = b"x" * (4 << 20)

    def prepare(self, request: Known) -> Shortcut | None:
        self.prepared += 1
        return None if request.params["name"].startswith("never") else Short(self, request)

    def swift(self, request: Incoming, body: Body, done: Done) -> GiveUp | None:
        name = request.params["name"]
        if name.startswith(("slow", "deaf", "late", "defect")):
            return None
        self.begun.append(name)
        if "swift-defect" in name:
            raise ZeroDivisionError("a bug")
        if not name.startswith("wait"):
            done(self._answer(request, body, "swift"))
            return lambda: self.gone.append(name)
        task = asyncio.create_task(self._later(request, body, done))

        def give_up() -> None:
            task.cancel()
            self.gone.append(name)

        return give_up

    async def story(self, request: Incoming) -> Outgoing:
        name = request.params["name"]
        self.begun.append(name)
        try:
            if name.startswith("late"):
                await self.go.wait()
            if name.startswith("defect"):
                raise ZeroDivisionError("a bug")
            if name.startswith("deaf"):
                raise FoothillError("unauthorized", "Who are you?")
            deadline = Deadline.after(float(request.headers.get("Within-Ms", "30000")), now_s=0.0)
            body = await request.read(MOST_BYTES, deadline, lambda: 0.0)
            if name.startswith("slow-wait"):
                await self.go.wait()
        except FoothillError as error:
            return refused(error, source="echo", request_id=request.request_id)
        except asyncio.CancelledError:
            self.gone.append(name)
            raise
        return self._answer(request, body, "story")

    async def _later(self, request: Incoming, body: Body, done: Done) -> None:
        await self.go.wait()
        done(self._answer(request, body, "swift"))
        self.handed_over.append(request.params["name"])

    def _answer(self, request: Incoming, body: Body, way: str) -> Outgoing:
        name = request.params["name"]
        self.answered.append(name)
        named = {"Way": way, "Name": name, "Foothill-Request-Id": request.request_id, "Waited": str(request.waited_s)}
        if name.startswith("bad"):
            named["Bad"] = "a\r\nSet-Cookie: b"
        return Outgoing(200, named, self.big if name.startswith("big") else bytes(body), Fixed({"Content-Type": "a/b"}))


class Short:
    """Echo's. Of a body that comes, a name says what is done: it is waited for (`awaited`, `wait`), or refused
    (`picky`)."""

    waited_s = 0.0

    def __init__(self, echo: Echo, request: Known) -> None:
        self._echo = echo
        self._request = request

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        return self._echo.swift(self._request.again(turn.request_id, turn.varied), body, turn.done)

    def expect(self, peek: Callable[[int], bytes], body_bytes: int, turn: Turn) -> Coming | None:
        name = self._request.params["name"]
        if name.startswith("picky-defect"):
            raise ZeroDivisionError("a bug")
        if name.startswith("picky"):
            error = FoothillError("overloaded", f"{peek(3)!r} of {body_bytes}: no.")
            turn.done(refused(error, source="echo", request_id=turn.request_id))
        return Awaited(self, self._echo, name) if name.startswith(("awaited", "wait")) else None


class Awaited:
    """One whose body comes; `awaited-odd` turns out to be for the story."""

    waited_s = 0.25

    def __init__(self, short: Short, echo: Echo, name: str) -> None:
        self._short = short
        self._echo = echo
        self._name = name
        echo.awaited.append(name)

    def start(self, body: Body, turn: Turn) -> GiveUp | None:
        return None if self._name.startswith("awaited-odd") else self._short.start(body, turn)

    def give_up(self) -> None:
        self._echo.gone.append(self._name)


def application(echo: Echo) -> web.Application:
    async def cold(request: web.Request) -> web.Response:
        body = await request.read()
        return web.Response(body=body, headers={"Way": "aiohttp", "Name": request.match_info["name"]})

    async def early(request: web.Request) -> web.Response:
        return web.Response(body=b"", headers={"Way": "aiohttp", "Name": request.match_info["name"]})

    app = web.Application(middlewares=[error_middleware("echo")], client_max_size=MOST_BYTES)
    app.router.add_post("/cold/{name}", cold)
    app.router.add_post("/early/{name}", early)
    app.router.add_post("/hot/{name}", handler(echo.story))
    app.router.add_post("/plain/{name}", handler(echo.story))
    app.router.add_post("/relayed/{name}", handler(echo.story))
    relayed = Route("POST", "/relayed/{name}", echo.story, echo.prepare, relays=True)
    app[HOT_ROUTES] = HotRoutes([Route("POST", "/hot/{name}", echo.story, echo.prepare), relayed])
    return app


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def runner(echo: Echo) -> AsyncIterator[web.AppRunner]:
    runner, _ = await start_app(application(echo), "127.0.0.1", 0, name="echo", drain_s=20.0)
    yield runner
    echo.go.set()
    await runner.cleanup()


Call = Callable[[], Awaitable[RawCaller]]


@pytest.fixture
async def call(runner: web.AppRunner) -> AsyncIterator[Call]:
    callers: list[RawCaller] = []

    async def connect() -> RawCaller:
        host, port = runner.addresses[0][:2]
        callers.append(await RawCaller.connect(f"http://{host}:{port}"))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.vanish()


def hot_of(runner: web.AppRunner) -> HotConnection:
    """That of the only connection."""
    assert runner.server is not None
    (protocol,) = runner.server.connections
    return cast(HotConnection, cast(Any, protocol).hot)


# How a request is sent, who answers it, and on which way.
KINDS: dict[str, tuple[Callable[[str, bytes], bytes], str]] = {
    "hot": (lambda name, body: post(f"/hot/{name}", body), "swift"),
    "slow": (lambda name, body: post(f"/hot/slow-{name}", body), "story"),
    "cold": (lambda name, body: post(f"/cold/{name}", body), "aiohttp"),
    "early": (lambda name, body: post(f"/early/{name}", body), "aiohttp"),
}
LESS_PLAIN: dict[str, Callable[[str, bytes], bytes]] = {
    "chunked": lambda name, body: post(f"/hot/{name}", body, chunked=True),
    "gzip": lambda name, body: post(f"/hot/{name}", gzip.compress(body), Content_Encoding="gzip"),
    "query": lambda name, body: post(f"/hot/{name}?a=b", body),
    "escape": lambda name, body: post(f"/hot/%{ord(name[0]):x}{name[1:]}", body),
}


@pytest.mark.parametrize("pieces", [0, 1, 7, 1000])
async def test_routes_of_both_kinds_take_turns_on_one_connection_in_any_order(call: Call, pieces: int) -> None:
    kinds = [*("hot", "cold", "hot", "slow", "slow", "cold", "early"), *("hot", "hot", "early", "slow", "hot", "cold")]
    bodies = [bytes([65 + at]) * (at * 37 % 211) for at in range(len(kinds))]
    names = [f"n{at}" for at in range(len(kinds))]
    caller = await call()
    whole = b"".join(KINDS[kind][0](name, body) for kind, name, body in zip(kinds, names, bodies, strict=True))
    sending = asyncio.create_task(caller.send(whole, pieces=pieces))
    for kind, name, body in zip(kinds, names, bodies, strict=True):
        told = await caller.answer()
        assert (told.status, told.headers["Name"].removeprefix("slow-")) == (200, name)
        assert told.body == (b"" if kind == "early" else body)
        # A body that has not come yet is waited for by the story.
        assert told.headers["Way"] in ({"swift", "story"} if kind == "hot" else {KINDS[kind][1]})
    await sending


@pytest.mark.parametrize("odd", LESS_PLAIN)
async def test_less_plain_requests_are_answered_alike_on_the_same_connection(call: Call, odd: str) -> None:
    caller = await call()
    for kind in ("hot", "cold", odd, "hot", odd, "slow", "hot"):
        make = LESS_PLAIN[kind] if kind == odd else KINDS[kind][0]
        await caller.send(make("abc", b"body"))
        told = await caller.answer()
        assert (told.status, told.headers["Name"].removeprefix("slow-"), told.body) == (200, "abc", b"body")


@pytest.mark.parametrize("pieces", [0, 3_000, 40_000, 70_000, 90_000])
@pytest.mark.parametrize("way", ["", "slow-", "late-", "awaited-", "awaited-odd-", "picky-", "deaf-"])
async def test_large_bodies_behind_heads_that_are_alike_come_whole_in_any_pieces(
    call: Call, echo: Echo, way: str, pieces: int
) -> None:
    caller = await call()
    echo.go.set()
    for at in range(6):
        body = bytes([97 + at]) * (100_000 if at != 3 else 99_000)
        more = post("/cold/small", b"z") if at == 2 else b""
        sending = asyncio.create_task(caller.send(post(f"/relayed/{way}x", body) + more, pieces=pieces))
        told = await caller.answer()
        await sending
        refused = way == "deaf-" or (way == "picky-" and told.status == 503)
        assert refused or (told.status, told.headers["Name"], told.body) == (200, f"{way}x", body)
        if more:
            assert (await caller.answer()).body == b"z"


async def test_of_a_large_body_that_a_caller_only_begins_no_more_is_kept_than_came(
    call: Call, runner: web.AppRunner
) -> None:
    caller, large = await call(), post("/relayed/x", bytes(1 << 20))
    await caller.send(large)
    await caller.answer()
    await caller.send(large[:5_000])
    coming = hot_of(runner)._body
    await until(lambda: coming.bulk is not None)
    assert coming.bulk is not None
    assert len(coming.bulk.room()) <= 1 << 16


async def test_another_request_than_the_one_before_it_is_read_from_its_place_too(call: Call) -> None:
    caller, body = await call(), b"x" * 100_000
    for other in (
        post("/cold/a", body),
        post("/relayed/ab", body),
        post("/hot/a", b"x" * 99_995),
        b"GARBAGE " * 20_000,
    ):
        await caller.send(post("/relayed/x", body))
        assert (await caller.answer()).body == body
        await caller.send(other)
        told = await caller.answer()
        assert (told.status, told.body[:5]) == (200, b"xxxxx") or other.startswith(b"GARBAGE")
    assert told.status == 400


async def test_they_are_answered_alike_when_all_are_sent_at_once(call: Call) -> None:
    caller = await call()
    odd = [make("abc", b"body") for make in LESS_PLAIN.values()]
    plain = post("/hot/abc", b"body")
    await caller.send(b"".join(plain + each for each in odd))
    for _ in range(2 * len(odd)):
        told = await caller.answer()
        assert (told.status, told.headers["Name"], told.body) == (200, "abc", b"body")


async def test_a_request_waits_until_the_one_before_it_is_answered(call: Call, echo: Echo) -> None:
    caller = await call()
    await caller.send(post("/hot/wait-1", b"1") + post("/hot/2", b"2") + post("/cold/3", b"3") + post("/hot/4", b"4"))
    await until(lambda: bool(echo.begun))
    assert echo.begun == ["wait-1"]
    echo.go.set()
    assert [(await caller.answer()).headers["Name"] for _ in range(4)] == ["wait-1", "2", "3", "4"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_other_methods_on_a_hot_path_are_refused_as_ever(call: Call, method: str) -> None:
    caller = await call()
    await caller.send(post("/hot/a", b"", method=method) + post("/hot/b"))
    told = await caller.answer(method)
    assert (told.status, told.headers["Allow"]) == (405, "POST")
    assert (await caller.answer()).headers["Way"] == "swift"


async def test_who_asks_first_gets_to_send_a_large_body(call: Call) -> None:
    """As curl does from 1 MiB on."""
    caller, body = await call(), b"y" * MOST_BYTES
    head, _, _ = post("/hot/slow-a", body, Expect="100-continue").partition(b"\r\n\r\n")
    await caller.send(head + b"\r\n\r\n")
    assert (await caller.head()).status == 100
    await caller.send(body)
    told = await caller.answer()
    assert (told.status, told.body == body) == (200, True)


async def test_a_caller_that_never_reads_is_answered_no_more_until_it_does(call: Call, echo: Echo) -> None:
    caller, count = await call(), 40
    await caller.send(b"".join(post(f"/hot/big-{at}") for at in range(count)))
    await until(lambda: bool(echo.answered))
    assert len(echo.answered) < count / 2
    for at in range(count):
        told = await caller.answer()
        assert (told.headers["Name"], len(told.body)) == (f"big-{at}", len(echo.big))


async def test_who_sends_thousands_at_once_lets_others_through(call: Call, echo: Echo) -> None:
    many, one = await call(), await call()
    many.writer.write(post("/hot/a") * 4000)
    one.writer.write(post("/hot/b"))
    assert (await one.answer()).headers["Name"] == "b"
    assert echo.answered.index("b") < 1000
    for _ in range(4000):
        assert (await many.answer()).headers["Name"] == "a"


@pytest.mark.parametrize("first", ["/hot/wait-1", "/hot/late-1"])
async def test_what_is_sent_behind_a_request_under_way_waits_in_the_kernel(
    call: Call, echo: Echo, runner: web.AppRunner, first: str
) -> None:
    caller, more = await call(), [post("/hot/a", bytes(1 << 16)) for _ in range(800)]
    await caller.send(post(first, bytes(1 << 16)))
    sending = asyncio.create_task(caller.send(b"".join(more)))
    hot = hot_of(runner)
    await until(lambda: hot._paused)
    assert hot._framing.held <= 2 * hot_connection._HELD_BYTES + (1 << 16)
    assert not sending.done()
    echo.go.set()
    for _ in range(len(more) + 1):
        assert len((await caller.answer()).body) == 1 << 16
    await sending
    assert not hot._paused


async def test_a_body_that_nobody_has_asked_for_yet_waits_in_the_kernel(
    call: Call, echo: Echo, runner: web.AppRunner
) -> None:
    """Who waits to be let in must not fill the memory meanwhile."""
    caller, body = await call(), bytes(MOST_BYTES)
    huge = b"POST /hot/late-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
    sending = asyncio.create_task(caller.send(huge + bytes(100_000_000)))
    await until(lambda: bool(echo.begun) and hot_of(runner)._paused)
    assert hot_of(runner)._framing.held <= 2 * hot_connection._HELD_BYTES
    echo.go.set()
    assert (await caller.answer()).status == 413
    await sending
    await caller.send(post("/hot/late-2", body))
    assert (await caller.answer()).body == body


async def test_a_body_is_waited_for_until_the_deadline_and_the_connection_goes_on_when_it_ends(call: Call) -> None:
    caller = await call()
    whole = post("/hot/a", b"12345", Within_Ms="50")
    await caller.send(whole[:-2])
    told = await caller.answer()
    assert (told.status, b"deadline_exceeded" in told.body) == (504, True)
    await caller.send(whole[-2:] + post("/hot/b", b"6"))
    assert (await caller.answer()).body == b"6"


@pytest.mark.parametrize("pieces", [1000, (1 << 16) - 1, 1 << 18])
async def test_a_large_body_is_awaited_without_a_task_and_the_next_request_behind_it(
    call: Call, echo: Echo, pieces: int
) -> None:
    caller, sizes = await call(), [1 << 20, 0, 300_000, 1 << 16, 1, (1 << 20) - 1]
    bodies = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    for prefix, way in (("awaited", "swift"), ("slow", "story")):
        sent = b"".join(post(f"/hot/{prefix}-{at}", body) for at, body in enumerate(bodies))
        sending = asyncio.create_task(caller.send(sent, pieces=pieces))
        for at, body in enumerate(bodies):
            told = await caller.answer()
            assert (told.headers["Way"], told.headers["Name"]) == (way, f"{prefix}-{at}")
            assert told.body == body
        await sending
    assert echo.awaited


async def test_a_body_that_was_awaited_for_nothing_is_the_storys_with_the_time_that_took(call: Call) -> None:
    caller, body = await call(), bytes(MOST_BYTES)
    await caller.send(post("/hot/awaited-odd", body) + post("/hot/b", b"6"))
    told = await caller.answer()
    assert (told.headers["Way"], told.headers["Waited"], told.body == body) == ("story", "0.25", True)
    assert (await caller.answer()).headers["Waited"] == "0.0"


async def test_who_is_refused_by_the_shortcut_need_not_send_a_body(call: Call, echo: Echo) -> None:
    caller, body = await call(), b"abc" + bytes(5 * MOST_BYTES)
    whole = post("/hot/picky-1", body)
    await caller.send(whole[: -len(body) + 3])
    told = await caller.answer()
    assert (told.status, f"b'abc' of {len(body)}: no." in told.body.decode()) == (503, True)
    await caller.send(body[3:] + post("/hot/b", b"6"))
    assert (await caller.answer()).body == b"6"
    await caller.send(whole + post("/hot/c", b"7"))
    assert [(await caller.answer()).status for _ in range(2)] == [503, 200]
    assert echo.begun == ["b", "c"]


async def test_a_large_body_that_comes_too_late_is_not_kept_and_the_connection_goes_on(
    call: Call, runner: web.AppRunner
) -> None:
    caller, body = await call(), bytes(MOST_BYTES)
    whole = post("/hot/slow-a", body, Within_Ms="100")
    await caller.send(whole[:-2])
    told = await caller.answer()
    assert (told.status, b"deadline_exceeded" in told.body) == (504, True)
    bulk = hot_of(runner)._body.bulk
    assert bulk is not None
    assert (bulk.left, bulk.body) == (2, b"")
    await caller.send(whole[-2:] + post("/hot/b", b"6"))
    assert (await caller.answer()).body == b"6"


async def test_a_body_above_the_limit_is_refused_before_it_comes(call: Call) -> None:
    caller, body = await call(), bytes(MOST_BYTES + 1)
    head, _, _ = post("/hot/slow-a", body).partition(b"\r\n\r\n")
    await caller.send(head + b"\r\n\r\n")
    told = await caller.answer()
    assert (told.status, b"body_too_large" in told.body) == (413, True)
    await caller.send(body + post("/hot/b", b"6"))
    assert (await caller.answer()).body == b"6"


async def test_an_early_refusal_reaches_a_caller_that_still_writes(call: Call) -> None:
    caller, body = await call(), bytes(10 * MOST_BYTES)
    await caller.send(post("/hot/deaf", body))
    assert (await caller.answer()).status == 401
    await caller.send(post("/hot/b", b"6"))
    assert (await caller.answer()).body == b"6"


async def test_who_never_sends_the_rest_of_a_refused_body_is_left(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LINGER_S", 0.05)
    caller = await call()
    await caller.send(post("/hot/deaf", b"12345")[:-1])
    assert (await caller.answer()).status == 401
    assert await caller.rest() == b""


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        (post("/hot/wait-1", b"1"), "wait-1"),
        (post("/hot/slow-wait-1", b"1"), "slow-wait-1"),
        (post("/hot/late-1", b"1"), "late-1"),
        (post("/hot/a", b"12345")[:-1], "a"),
        (post("/hot/awaited-a", bytes(MOST_BYTES))[:-1], "awaited-a"),
        (post("/hot/wait-1", b"1") + post("/hot/b", b"1"), "wait-1"),
        (post("/hot/slow-wait-1", b"1", chunked=True), "slow-wait-1"),
        (post("/hot/slow-wait-1", b"1", chunked=True) + post("/hot/b", b"1"), "slow-wait-1"),
        (post("/hot/slow-wait-1", b"1").replace(b"HTTP/1.1", b"HTTP/1.0"), "slow-wait-1"),
        (post("/plain/slow-wait-1", b"1"), "slow-wait-1"),
    ],
)
@pytest.mark.parametrize("how", ["vanishes", "closes"])
async def test_what_is_done_for_a_caller_that_is_gone_is_given_up_once(
    call: Call, echo: Echo, runner: web.AppRunner, sent: bytes, named: str, how: str
) -> None:
    """Also where its kernel tells only that no more bytes come: a word to it is refused."""
    caller = await call()
    await caller.send(sent)
    await until(lambda: bool(echo.begun or echo.awaited))
    if how == "vanishes":
        caller.vanish()
    else:
        await caller.close()
    await until(lambda: bool(echo.gone))
    assert runner.server is not None
    await until(lambda: not runner.server.connections)  # type: ignore[union-attr]
    assert (echo.begun + echo.awaited, echo.gone, echo.answered) == ([named], [named], [])


@pytest.mark.parametrize("name", ["hot/wait", "hot/slow-wait", "plain/slow-wait"])
@pytest.mark.parametrize("chunked", [(), (1,), (2,), (1, 2, 3)])
async def test_a_caller_that_says_that_no_more_comes_gets_all_its_answers(
    call: Call, echo: Echo, runner: web.AppRunner, name: str, chunked: tuple[int, ...]
) -> None:
    caller = await call()
    targets = {1: f"/{name}-1", 2: "/hot/2", 3: "/cold/3"}
    await caller.send(b"".join(post(target, b"1", chunked=n in chunked) for n, target in targets.items()))
    caller.writer.write_eof()
    await asyncio.sleep(0.25)
    echo.go.set()
    told = await caller.rest()
    assert told.count(b"HTTP/1.1 200 OK") == 3
    assert told.replace(hot_connection.CONTINUE, b"").startswith(b"HTTP/1.1 200 OK")
    assert runner.server is not None
    await until(lambda: not runner.server.connections)  # type: ignore[union-attr]
    await caller.close()


async def test_a_caller_that_says_so_in_the_midst_of_a_request_is_left(
    call: Call, echo: Echo, runner: web.AppRunner
) -> None:
    for chunked in (False, True):
        caller = await call()
        await caller.send(post("/hot/1", b"12345", chunked=chunked)[:-3])
        caller.writer.write_eof()
        assert b"200 OK" not in await caller.rest()
        await caller.close()
    assert echo.answered == []


async def test_an_answer_under_way_is_given_while_the_server_stops_and_no_other(
    call: Call, echo: Echo, runner: web.AppRunner
) -> None:
    swift, story, idle = [await call() for _ in range(3)]
    await swift.send(post("/hot/wait-1", b"1") + post("/hot/2", b"2"))
    await story.send(post("/hot/slow-wait-1", b"1") + post("/cold/2", b"2"))
    await until(lambda: len(echo.begun) == 2)
    stopping = asyncio.create_task(runner.cleanup())
    assert await idle.rest() == b""
    await swift.send(post("/hot/3", b"3"))
    echo.go.set()
    for caller in (swift, story):
        assert (await caller.answer()).body == b"1"
        assert await caller.rest() == b""
    await stopping
    assert sorted(echo.answered) == ["slow-wait-1", "wait-1"]


async def test_a_body_on_its_way_may_still_come_while_the_server_stops(
    call: Call, echo: Echo, runner: web.AppRunner
) -> None:
    caller, idle = await call(), await call()
    whole = post("/hot/a", b"12345")
    await caller.send(whole[:-2])
    await until(lambda: bool(echo.begun))
    stopping = asyncio.create_task(runner.cleanup())
    assert await idle.rest() == b""
    await caller.send(whole[-2:])
    assert (await caller.answer()).body == b"12345"
    assert await caller.rest() == b""
    await stopping


async def test_a_stopping_server_does_not_wait_for_who_is_gone(call: Call, echo: Echo, runner: web.AppRunner) -> None:
    caller, idle = await call(), await call()
    await caller.send(post("/hot/wait-1", b"1"))
    await until(lambda: bool(echo.begun))
    stopping = asyncio.create_task(runner.cleanup())
    assert await idle.rest() == b""
    caller.vanish()
    await asyncio.wait_for(stopping, 15)
    assert echo.gone == ["wait-1"]


async def test_a_pipelined_request_behind_another_routes_is_drained_too(
    call: Call, echo: Echo, runner: web.AppRunner
) -> None:
    """aiohttp counts its own request as ended just when the next one begins."""
    caller, idle = await call(), await call()
    await caller.send(post("/cold/1", b"1") + post("/hot/wait-2", b"2"))
    assert (await caller.answer()).body == b"1"
    await until(lambda: bool(echo.begun))
    stopping = asyncio.create_task(runner.cleanup())
    assert await idle.rest() == b""
    echo.go.set()
    assert (await caller.answer()).body == b"2"
    await stopping


async def test_an_idle_connection_is_closed_after_a_while_however_it_was_used(echo: Echo) -> None:
    runner = Runner(application(echo), source="echo", keepalive_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    for used in (b"", post("/hot/a"), post("/cold/a"), post("/cold/a") + post("/hot/a")):
        caller = await RawCaller.connect(f"http://127.0.0.1:{runner.addresses[0][1]}")
        await caller.send(used)
        assert (await caller.rest()).count(b"200 OK") == used.count(b"POST")
        await caller.close()
    await runner.cleanup()


async def test_a_hot_request_is_use_of_its_connection(echo: Echo) -> None:
    runner = Runner(application(echo), source="echo", keepalive_timeout=0.4)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    caller = await RawCaller.connect(f"http://127.0.0.1:{runner.addresses[0][1]}")
    for _ in range(8):
        await caller.send(post("/hot/a"))
        assert (await caller.answer()).body == b""
        await asyncio.sleep(0.1)
    await caller.close()
    await runner.cleanup()


@pytest.mark.parametrize("name", ["defect", "swift-defect", "bad", "picky-defect", "awaited-swift-defect"])
async def test_a_defect_closes_its_connection_and_no_other(
    call: Call, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caller, other = await call(), await call()
    body = bytes(1 << 17) if name.startswith(("picky", "awaited")) else b""
    await caller.send(post(f"/hot/{name}", body) + post("/hot/b"))
    told = await caller.rest()
    assert b"Set-Cookie" not in told
    assert b"200 OK" not in told
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await other.send(post("/hot/b"))
    assert (await other.answer()).status == 200


async def test_a_defect_does_not_reach_who_answered_the_request_before(call: Call, echo: Echo) -> None:
    caller = await call()
    await caller.send(post("/hot/wait") + post("/hot/swift-defect"))
    await until(lambda: echo.begun == ["wait"])
    echo.go.set()
    assert (await caller.answer()).status == 200
    assert await caller.rest() == b""
    assert echo.handed_over == ["wait"]


async def test_a_request_keeps_its_callers_id_or_gets_a_new_one(call: Call) -> None:
    caller = await call()
    ids = []
    for sent in ("my-1", "my-1", "x" * 129, "a b", "a%0d%0aSet-Cookie:x", "é", "", None):
        await caller.send(post("/hot/a") if sent is None else post("/hot/a", Foothill_Request_Id=sent))
        ids.append((await caller.answer()).headers["Foothill-Request-Id"])
    assert ids[:2] == ["my-1", "my-1"]
    assert len(set(ids[2:])) == len(ids[2:])
    assert all(re.fullmatch(r"[0-9a-f]{32}", made) for made in ids[2:])


async def test_requests_in_the_same_bytes_get_ids_of_their_own(call: Call) -> None:
    caller = await call()
    await caller.send(post("/hot/a") * 600)
    ids = [(await caller.answer()).headers["Foothill-Request-Id"] for _ in range(600)]
    assert len(set(ids)) == 600


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nB: c", "a\rB: c", "a\r\n\r\nbody", "\n", "\r"])
def test_no_value_of_a_header_begins_another_line(value: str) -> None:
    for named in ({"A": value}, {"A": "a", "B": value}, {"A": value, "B": value}, {value: "a"}):
        with pytest.raises(FoothillError, match="line break") as raised:
            header_lines(named)
        assert raised.value.code == "internal"
        with pytest.raises(FoothillError, match="line break"):
            rendered(Outgoing(200, named, b""), "now")


def test_an_answers_head_is_written_as_http_has_it() -> None:
    answer = Outgoing(404, {"A": "b"}, b"12345", Fixed({"C": "d"}))
    head = rendered(answer, "Sun, 06 Nov 1994 08:49:37 GMT")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 404 Not Found",
        b"C: d",
        b"A: b",
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
        b"Content-Length: 5",
        b"",
        b"",
    ]
