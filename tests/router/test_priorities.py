"""Overload: what matters least is refused first, each node has as much as it may, and no header raises a priority."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.errors import FoothillError
from contracts.gradient import Gradient2
from contracts.headers import PRIORITIES, Priority, Terms, lower, parse_terms
from router import node as nodes_module
from router.fields import SHARES, Fields
from router.proxy import BUSY_RETRY_S
from runtime.links.access.grants import Grant
from tests.router.rig import BuildRig, Server, Start, call, static
from tests.router.test_app import Client, Route, edge, router  # noqa: F401 - fixtures
from tests.router.test_fields import near_and_far
from tests.router.test_selection import NOW_S
from tests.runtime.raw_caller import until

priorities = st.sampled_from(PRIORITIES)


@given(st.lists(st.tuples(st.floats(1.0, 50.0), st.integers(0, 60)), min_size=1, max_size=6), st.integers(0, 9))
def test_where_there_is_room_for_what_matters_less_there_is_for_what_matters_more(
    loads: list[tuple[float, int]], seed: int
) -> None:
    nodes = near_and_far(len(loads))
    for node, (most, in_flight) in zip(nodes.all(), loads, strict=True):
        node.most, node.in_flight = most, in_flight
    fields = Fields(nodes, random.Random(seed))
    found = [fields.of("digits", (), priority=priority).pick(NOW_S) for priority in PRIORITIES]
    room = [picked is not None for picked in found]
    assert room == sorted(room, reverse=True)
    assert room[0] == any(in_flight < most for most, in_flight in loads)
    for priority, picked in zip(PRIORITIES, found, strict=True):
        assert picked is None or picked.node.in_flight < SHARES[priority] * picked.node.most


@given(st.floats(1.0, 200.0), priorities)
def test_one_alone_fills_its_share_of_each_node_and_one_request_at_least(most: float, priority: Priority) -> None:
    nodes = near_and_far(3)
    for node in nodes.all():
        node.most = most
    field = Fields(nodes, random.Random(1)).of("digits", (), priority=priority)
    while (picked := field.pick(NOW_S)) is not None:
        picked.node.reserve(NOW_S)
    for node in nodes.all():
        assert node.in_flight - 1 < SHARES[priority] * most <= max(1, node.in_flight)
    last = field.last(NOW_S)
    assert last is None, "the last resort has no more room either"


@given(priorities, priorities)
def test_a_header_lowers_and_never_raises(token: Priority, asked: Priority) -> None:
    terms = Grant(priority=token).narrow(parse_terms({headers.PRIORITY: asked.upper()}))
    assert terms.priority == lower(token, asked)
    assert PRIORITIES.index(terms.priority) == max(PRIORITIES.index(token), PRIORITIES.index(asked))
    assert Grant(priority=token).narrow(parse_terms({})).priority == token


@pytest.mark.parametrize("value", ["", "urgent", "0", "high,low"])
def test_another_word_is_no_priority(value: str) -> None:
    with pytest.raises(FoothillError, match="one of high, normal, low") as refused:
        parse_terms({headers.PRIORITY: value})
    assert refused.value.code == "bad_header"


async def test_low_is_refused_first_and_told_to_stay_away_longest(rig: BuildRig, start: Start) -> None:
    server = await start("edge-fra")
    server.hold = asyncio.Event()
    made = rig([static("edge-fra", server.url)], [])
    made.nodes.all()[0].most = 10.0
    asked: list[asyncio.Task[Any]] = []
    for priority, room in (("low", 7), ("normal", 2), ("high", 1)):
        terms = Terms(priority=msgspec.convert(priority, Priority))
        for _ in range(room):
            asked.append(asyncio.create_task(made.proxy.answer(call(terms=terms))))
            await until(lambda: made.in_flight() == len(asked))
        with pytest.raises(FoothillError, match=f"priority {priority}") as refused:
            await made.proxy.answer(call(terms=terms))
        assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", BUSY_RETRY_S[terms.priority])
    server.hold.set()
    assert {(await each).answer.status for each in asked} == {200}
    shed = made.telemetry.registry.get_sample_value
    assert [shed("foothill_router_shed_total", {"priority": priority}) for priority in PRIORITIES] == [1, 1, 1]


async def test_what_finds_no_room_goes_to_the_cloud(rig: BuildRig, start: Start) -> None:
    server, big = await start("edge-fra"), await start("cloud", tier="cloud", answer="7")
    made = rig([static("edge-fra", server.url)], [big.url])
    (node,) = made.nodes.all()
    node.limit, node.most, node.in_flight = Gradient2(10), 10.0, 8
    told = [await made.proxy.answer(call(terms=Terms(priority=priority))) for priority in PRIORITIES]
    node.in_flight = 0
    assert [each.reason for each in told] == ["confident", "confident", "edge-busy"]


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, Any]:
    """Tenants called as the priority of their tokens."""
    lines = [
        f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{more}\n'
        for name, more in (("low", 'priority = "low"'), ("normal", ""), ("high", 'priority = "high"'))
    ]
    (tmp_path / "tokens.toml").write_text("".join(lines))
    return {"tokens_file": str(tmp_path / "tokens.toml"), "state_dir": str(tmp_path / "state")}


async def status(client: Client, tenant: str, **sent: str) -> tuple[int, str | None]:
    response, body = await client.predict({"Authorization": f"Bearer {tenant}"} | sent)
    if response.status == 503:
        assert json.loads(body)["code"] == "overloaded"
    return response.status, response.headers.get("Retry-After")


async def test_tokens_have_priorities_and_headers_lower_them(
    router: Route,  # noqa: F811
    edge: Server,  # noqa: F811
    tokens: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes_module, "MOST_IN_FLIGHT", 10)
    client = await router([static("edge-fra", edge.url)], [], **tokens)
    edge.hold = asyncio.Event()
    raised, lowered = {headers.PRIORITY: "high"}, {headers.PRIORITY: "low"}
    asked = [asyncio.create_task(status(client, "low", **raised)) for _ in range(7)]
    await until(lambda: len(edge.seen) == 7)
    assert await status(client, "low", **raised) == (503, "4")
    assert await status(client, "high", **lowered) == (503, "4")
    asked += [asyncio.create_task(status(client, "normal")) for _ in range(2)]
    await until(lambda: len(edge.seen) == 9)
    assert await status(client, "normal") == (503, "1")
    asked.append(asyncio.create_task(status(client, "high")))
    await until(lambda: len(edge.seen) == 10)
    assert await status(client, "high") == (503, "1")
    edge.hold.set()
    assert await asyncio.gather(*asked) == [(200, None)] * 10


async def test_without_tokens_all_are_high_and_may_lower_themselves_on_the_short_way_too(
    router: Route,  # noqa: F811
    edge: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nodes_module, "MOST_IN_FLIGHT", 10)
    client = await router([static("edge-fra", edge.url)], [])
    for sent in ({}, {headers.PRIORITY: "low"}):
        for _ in range(2):
            assert (await client.predict(sent))[0].status == 200
    edge.hold = asyncio.Event()
    asked = [asyncio.create_task(client.predict({headers.PRIORITY: "low"})) for _ in range(7)]
    await until(lambda: len(edge.seen) == 4 + 7)
    assert (await client.predict({headers.PRIORITY: "low"}))[0].status == 503
    asked += [asyncio.create_task(client.predict()) for _ in range(3)]
    await until(lambda: len(edge.seen) == 4 + 10)
    assert (await client.predict())[0].status == 503
    edge.hold.set()
    assert {response.status for response, _ in await asyncio.gather(*asked)} == {200}
    response, body = await client.predict({headers.PRIORITY: "urgent"})
    assert (response.status, json.loads(body)["code"]) == (400, "bad_header")
