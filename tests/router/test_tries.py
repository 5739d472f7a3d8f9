"""Second tries over real sockets: hedges for slow nodes, pauses where all have failed, and one budget for both."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.shares import share_ms
from tests.router.rig import TOKYO, BuildRig, Rig, Server, Start, call, static

KEYED = Terms(idempotency_key="k1")


async def two(start: Start, rig: BuildRig) -> tuple[Server, Server, Rig]:
    near, far = await start("edge-fra"), await start("edge-nrt")
    made = rig([static("edge-fra", near.url), static("edge-nrt", far.url, TOKYO)], [])
    for _ in range(3):
        await made.proxy.answer(call())
    return near, far, made


def hedges(made: Rig, outcome: str) -> float:
    return made.telemetry.registry.get_sample_value("foothill_router_hedges_total", {"outcome": outcome}) or 0.0


async def test_a_slow_node_is_hedged_and_the_loser_cancelled_on_the_wire(start: Start, rig: BuildRig) -> None:
    near, far, made = await two(start, rig)
    near.hold = asyncio.Event()
    settled = await asyncio.wait_for(made.proxy.answer(call(terms=KEYED)), 2.0)
    assert settled.answer.headers[headers.NODE] == "edge-nrt"
    await asyncio.wait_for(near.cancelled.wait(), 2.0)
    assert (hedges(made, "won"), len(far.seen), made.in_flight()) == (1, 1, 0)
    assert made.nodes.all()[0].circuit.failures == 0


async def test_without_an_idempotency_key_nothing_is_sent_twice(start: Start, rig: BuildRig) -> None:
    near, far, made = await two(start, rig)
    near.hold = asyncio.Event()
    asking = asyncio.create_task(made.proxy.answer(call(within_ms=1500)))
    await asyncio.sleep(0.4)
    assert not far.seen
    near.hold.set()
    await asking
    assert hedges(made, "won") == 0


async def test_a_first_that_still_wins_is_the_answer(start: Start, rig: BuildRig) -> None:
    near, far, made = await two(start, rig)
    near.hold, far.hold = asyncio.Event(), asyncio.Event()
    asking = asyncio.create_task(made.proxy.answer(call(terms=KEYED)))
    await asyncio.wait_for(far.arrived.wait(), 2.0)
    near.hold.set()
    settled = await asking
    assert settled.answer.headers[headers.NODE] == "edge-fra"
    await asyncio.wait_for(far.cancelled.wait(), 2.0)
    assert (hedges(made, "lost"), made.in_flight()) == (1, 0)


async def test_a_hedge_that_fails_leaves_the_first_its_time(start: Start, rig: BuildRig) -> None:
    near, far, made = await two(start, rig)
    near.hold, far.status = asyncio.Event(), 503
    asking = asyncio.create_task(made.proxy.answer(call(terms=KEYED)))
    await asyncio.wait_for(far.arrived.wait(), 2.0)
    await asyncio.sleep(0.05)
    near.hold.set()
    assert (await asking).answer.headers[headers.NODE] == "edge-fra"
    assert made.in_flight() == 0


async def test_hedges_are_few(start: Start, rig: BuildRig) -> None:
    near, _, made = await two(start, rig)
    near.hold = asyncio.Event()
    for _ in range(6):
        with contextlib.suppress(FoothillError):
            await made.proxy.answer(call(terms=KEYED, within_ms=600))
    assert hedges(made, "won") <= 3
    assert hedges(made, "no-budget") >= 1


async def test_a_caller_that_leaves_cancels_both(start: Start, rig: BuildRig) -> None:
    near, far, made = await two(start, rig)
    near.hold, far.hold = asyncio.Event(), asyncio.Event()
    asking = asyncio.create_task(made.proxy.answer(call(terms=KEYED)))
    await asyncio.wait_for(far.arrived.wait(), 2.0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(near.cancelled.wait(), 2.0)
    await asyncio.wait_for(far.cancelled.wait(), 2.0)
    assert made.in_flight() == 0


@given(st.floats(0.0, 5000.0), st.floats(1.0, 20_000.0), st.booleans(), st.booleans())
def test_no_node_takes_more_than_there_is_and_one_in_doubt_only_what_it_needs(
    expected_ms: float, left_ms: float, well: bool, owed: bool
) -> None:
    share = share_ms(expected_ms, left_ms, well=well, owed=owed)
    needed_ms = 3.0 * expected_ms + 100.0
    assert share <= left_ms
    assert share >= min(needed_ms, left_ms / 2)
    if owed or not well:
        assert share <= max(left_ms / 2, min(left_ms, needed_ms))
    if owed:
        assert share <= left_ms / 2
    if not well and needed_ms < left_ms / 2:
        assert share == needed_ms


async def test_where_all_have_failed_they_are_asked_again_a_little_later(start: Start, rig: BuildRig) -> None:
    edge = await start("edge-fra")
    edge.status = 500
    made = rig([static("edge-fra", edge.url)], [])

    async def recover() -> None:
        await edge.arrived.wait()
        edge.status = 200

    recovering = asyncio.create_task(recover())
    settled = await made.proxy.answer(call())
    await recovering
    assert settled.answer.status == 200
    assert len(edge.seen) > 1


async def test_who_asks_to_be_left_alone_for_longer_than_there_is_time_is_not_asked_again(
    start: Start, rig: BuildRig
) -> None:
    edge = await start("edge-fra")
    edge.status = 503  # with Retry-After: 7
    settled = await rig([static("edge-fra", edge.url)], []).proxy.answer(call(within_ms=5000))
    assert settled.answer.status == 503
    assert len(edge.seen) <= 2, "at most once more, where nothing better was left"


async def test_pauses_end(start: Start, rig: BuildRig) -> None:
    edge = await start("edge-fra")
    edge.status = 500
    settled = await asyncio.wait_for(rig([static("edge-fra", edge.url)], []).proxy.answer(call()), 3.0)
    assert settled.answer.status == 500
    assert len(edge.seen) <= 6
