from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import cycle

from hil.load import Shot, closed_loop, counting, lasting, open_loop
from hil.node import NodeUnderTest
from runtime.links.http.upstream import Request, Upstreams


class Scripted:
    """Answers with the statuses of a script, over and over, and knows how many were under way at once."""

    def __init__(self, *statuses: int, ms: float = 1.0) -> None:
        self._statuses: Iterator[int] = cycle(statuses)
        self._ms = ms
        self._at_once = 0
        self.most = self.sent = 0

    async def __call__(self) -> Shot:
        self.sent += 1
        self._at_once += 1
        self.most = max(self.most, self._at_once)
        await asyncio.sleep(0)
        self._at_once -= 1
        status = next(self._statuses)
        return Shot(status, self._ms, {"infer": 0.5}, "" if status == 200 else f"said {status}", "sha256:a")


async def test_a_closed_loop_keeps_so_many_under_way_and_sends_what_was_asked() -> None:
    shoot = Scripted(200, ms=4.0)
    tally = await closed_loop(shoot, concurrency=3, until=counting(99))
    assert (tally.answered, tally.failed, tally.refused, shoot.most) == (99, 0, 0, 3)
    assert tally.digests == {"sha256:a": 99}
    point = tally.point("closed", 3, 0.0)
    assert abs(point.p50_ms - 4.0) < 0.05
    assert point.phases_ms == {"infer": 0.5}


async def test_refusals_are_no_failures_and_no_answer_is_one() -> None:
    tally = await closed_loop(Scripted(200, 503, 429, 504, 0, 500), concurrency=1, until=counting(12))
    assert (tally.answered, tally.refused, tally.failed) == (2, 6, 4)
    assert tally.faults == ["503: said 503", "429: said 429", "504: said 504"]


async def test_a_node_that_only_fails_is_given_up() -> None:
    shoot = Scripted(0)
    tally = await closed_loop(shoot, concurrency=4, until=lambda: False)
    assert tally.answered == 0
    assert 40 <= shoot.sent <= 44


async def test_one_success_begins_the_count_of_failures_anew() -> None:
    shoot = Scripted(*([500] * 15), 200)
    tally = await closed_loop(shoot, concurrency=1, until=counting(64))
    assert shoot.sent == 64
    assert tally.failed == 60


async def test_an_open_loop_sends_at_its_own_rate_and_counts_from_when_a_request_was_due() -> None:
    stalled = asyncio.Event()
    asyncio.get_running_loop().call_later(0.6, stalled.set)

    async def shoot() -> Shot:
        await stalled.wait()
        return Shot(200, 0.1, {})

    tally = await open_loop(shoot, rate=200.0, seconds=0.3, rng=random.Random(1))
    assert tally.answered > 10, "it waited for answers before it sent on"
    # All were due in the first 0.3 s and none was answered before 0.6 s, whatever each said of itself.
    assert tally.latencies.quantile(1) >= 250


def test_time_is_up_when_the_clock_says_so() -> None:
    now_s = [5.0]
    done = lasting(2.0, clock=lambda: now_s[0])
    assert not done()
    now_s[0] = 7.0
    assert done()


async def test_a_shot_at_nobody_is_a_failure_and_raises_nothing() -> None:
    upstreams = Upstreams()
    try:
        node = NodeUnderTest("http://127.0.0.1:9", upstreams)
        shot = await node.shoot(Request("POST", "/v2/models/x/infer", {}))
        assert shot.status == 0
        assert "127.0.0.1:9" in shot.said
    finally:
        await upstreams.close()
