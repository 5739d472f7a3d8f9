"""A node under callers for a while, in small; `make switches` and `make soak` are long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hil.growth import exceeds, growth
from tests.edge_node.endurance import MOST_PERCENT, Look, Site, Verdict, leaks, soak, switch_many
from tests.edge_node.traffic import Talk, Tally, all_kinds, call, hot_kinds

STEADY = [Look(100e6 + noise, 30, 12, 20) for noise in (0, 3e5, 1e5, 2e5, 0, 1e5, 3e5, 0, 2e5)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def unfailing(verdict: Verdict) -> list[str]:
    """Memory is left to the long runs: what is loaded only once is no small part of a short one."""
    return [wrong for wrong in verdict.wrong if not wrong.startswith("rss_bytes")]


@pytest.mark.integration
async def test_no_request_fails_in_ten_switches_and_nothing_is_held_on_to(site: Site) -> None:
    verdict = await switch_many(site, 10, callers=4)
    assert unfailing(verdict) == []
    assert verdict.switches == 11
    assert set(verdict.answered) == {kind.name for kind in hot_kinds()}
    assert "Traceback" not in site.node.said


@pytest.mark.integration
async def test_callers_of_every_kind_get_what_is_theirs_and_leave_nothing_behind(site: Site) -> None:
    verdict = await soak(site, 5_000, callers=6, switch_every=2_000)
    assert unfailing(verdict) == []
    assert verdict.hung_up
    assert set(verdict.answered) == {kind.name for kind in all_kinds()}
    assert verdict.switches >= 2
    assert "Traceback" not in site.node.said


@pytest.mark.parametrize("how", ["503", "cut", "away"])
async def test_callers_note_what_failed(how: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if how == "503":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if how == "away":
        server.close()
        await server.wait_closed()
    tally = Tally()
    talk = Talk(hot_kinds(), tally, random.Random(0), lambda: tally.failed == 0)
    await call(talk, f"http://127.0.0.1:{port}", per_connection=10)
    server.close()
    told = {"503": "503 instead of 200: no", "cut": "the connection was lost", "away": "connecting: "}
    assert (tally.failed, tally.answered.total()) == (1, 0)
    assert told[how] in tally.failures[0]


def test_what_is_steady_passes() -> None:
    assert leaks(STEADY, STEADY[0], STEADY[-1]) == []


@pytest.mark.parametrize(
    ("field", "a_look"), [("rss_bytes", 1e6), ("files", 2.0), ("threads", 2.0), ("tasks", 5.0)], ids=str
)
def test_what_grows_does_not(field: str, a_look: float) -> None:
    grown = [look._replace(**{field: getattr(look, field) + at * a_look}) for at, look in enumerate(STEADY)]
    assert [wrong.split(":")[0] for wrong in leaks(grown, STEADY[0], STEADY[0])] == [field]


def test_neither_does_memory_that_grows_too_slowly_to_be_seen_between_thirds() -> None:
    slow = [STEADY[0]._replace(rss_bytes=100e6 + at * 0.1e6) for at in range(30)]
    by_thirds = growth([look.rss_bytes for look in slow])
    assert by_thirds is not None
    assert not exceeds(by_thirds, percent=MOST_PERCENT, allowance=0)
    (wrong,) = leaks(slow, STEADY[0], STEADY[0])
    assert wrong.startswith("rss_bytes: +2.39 %")


@pytest.mark.parametrize(("callers", "grown"), [(0, 4), (4, 8)])
def test_each_caller_may_hold_a_task_more_or_less(callers: int, grown: int) -> None:
    busier = [*STEADY[:6], *(look._replace(tasks=20 + grown) for look in STEADY[6:])]
    (wrong,) = leaks(busier, STEADY[0], STEADY[0], callers)
    assert wrong == f"tasks: from 20 to {20 + grown}"
    assert leaks(busier, STEADY[0], STEADY[0], callers + 1) == []


@pytest.mark.parametrize("field", ["files", "tasks"])
def test_neither_does_what_is_not_let_go_of(field: str) -> None:
    after = STEADY[0]._replace(**{field: getattr(STEADY[0], field) + 1})
    (wrong,) = leaks(STEADY, STEADY[0], after)
    assert "when all had left" in wrong


def test_too_few_looks_are_no_verdict() -> None:
    assert "too few looks" in leaks(STEADY[:3], STEADY[0], STEADY[0])[0]
