"""Budgets: never more than a day allows, whatever the clock does; and what was spent survives a restart."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import headers
from contracts.headers import Terms
from router.budgets import Book, Budgets
from router.ledger import FILE, Ledger, read_book
from runtime.links.access.grants import UNLIMITED, Allowance
from tests.router.rig import BuildRig, Server, Start, call, static
from tests.router.test_app import Client, Route, cloud, edge, router  # noqa: F401 - fixtures
from tests.router.test_shortcut import certified  # noqa: F401 - a fixture
from tests.runtime.raw_caller import until

DAY_S = 86_400.0
NOON_S = 1_800_000_000.0 // DAY_S * DAY_S + DAY_S / 2
KIOSK = {"Authorization": "Bearer s3cret"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.off_s = NOON_S

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + self.off_s


def budgets(clock: Clock, book: Book | None = None) -> Budgets:
    return Budgets(book or Book(), clock, clock.wall)


@given(
    per_day=st.integers(0, 20),
    cost_per_day=st.floats(0, 10),
    costs=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.floats(0, 3)), max_size=60),
)
def test_no_day_has_more_than_it_allows_but_for_what_was_not_asked_for(
    per_day: int, cost_per_day: float, costs: list[tuple[str, bool, float]]
) -> None:
    kept, allowance = budgets(Clock()), Allowance(0.0, per_day, cost_per_day)
    for tenant, asks, cost in costs:
        spent = kept.book.tenants.get(tenant)
        before = msgspec.structs.astuple(spent) if spent is not None else (0, 0.0)
        if not asks:
            kept.spend(tenant, allowance, cost)
            continue
        fits = not (0 < per_day <= before[0]) and (not cost_per_day or before[1] + cost <= cost_per_day * (1 + 1e-9))
        assert kept.take(tenant, allowance, cost) == fits
        if allowance.limited:
            after = msgspec.structs.astuple(kept.book.tenants[tenant])
            assert after == ((before[0] + 1, before[1] + cost) if fits else before)


def test_small_costs_add_up_to_the_whole_budget() -> None:
    kept, allowance = budgets(Clock()), Allowance(cost_per_day=0.3)
    assert [kept.take("a", allowance, 0.1) for _ in range(4)] == [True, True, True, False]


@given(st.floats(0.5, 50.0), st.lists(st.floats(0.0, 0.5), min_size=1, max_size=60))
def test_a_rate_holds_in_every_stretch_of_time(per_s: float, pauses_s: list[float]) -> None:
    clock = Clock()
    kept, allowance, taken_s = budgets(clock), Allowance(escalations_per_s=per_s), []
    for pause_s in pauses_s:
        clock.now_s += pause_s
        if kept.take("a", allowance, 1.0):
            taken_s.append(clock.now_s)
    for first, begin_s in enumerate(taken_s):
        for last in range(first, len(taken_s)):
            assert last - first + 1 <= max(1.0, per_s) + per_s * (taken_s[last] - begin_s) + 1 + 1e-6


def test_a_changed_rate_counts_at_once() -> None:
    clock = Clock()
    kept = budgets(clock)
    assert [kept.take("a", Allowance(escalations_per_s=1.0), 0.0) for _ in range(2)] == [True, False]
    assert [kept.take("a", Allowance(escalations_per_s=3.0), 0.0) for _ in range(4)] == [True, True, True, False]


def test_without_limits_nothing_is_counted() -> None:
    kept = budgets(Clock())
    assert all(kept.take("", UNLIMITED, 1e9) for _ in range(100))
    kept.spend("", UNLIMITED, 5.0)
    assert (kept.changes, kept.book.tenants) == (0, {})


def test_a_new_day_begins_at_midnight_and_no_earlier() -> None:
    clock = Clock()
    kept, allowance = budgets(clock), Allowance(escalations_per_day=1)
    assert kept.take("a", allowance, 0.0)
    for step_s in (0.0, DAY_S / 2 - 1.0):
        clock.now_s = step_s
        assert not kept.take("a", allowance, 0.0)
    clock.now_s = DAY_S / 2 + 1.0
    assert kept.take("a", allowance, 0.0)


@given(st.lists(st.floats(-0.9 * DAY_S, 0.4 * DAY_S), max_size=10))
def test_a_clock_that_is_set_back_refills_nothing(jumps_s: list[float]) -> None:
    clock = Clock()
    kept, allowance = budgets(clock), Allowance(escalations_per_day=1)
    assert kept.take("a", allowance, 0.0)
    for jump_s in jumps_s:
        clock.off_s = NOON_S + jump_s
        assert not kept.take("a", allowance, 0.0)


def test_a_clock_that_was_far_ahead_locks_nobody_out() -> None:
    clock = Clock()
    kept, allowance = budgets(clock), Allowance(escalations_per_day=1)
    clock.off_s += 3000 * DAY_S
    assert [kept.take("a", allowance, 0.0) for _ in range(2)] == [True, False]
    clock.off_s = NOON_S
    assert [kept.take("a", allowance, 0.0) for _ in range(2)] == [True, False]


async def test_a_book_is_what_it_was_after_a_restart(tmp_path: Path) -> None:
    path, clock, allowance = tmp_path / "state" / FILE, Clock(), Allowance(escalations_per_day=3)
    for _ in range(2):
        kept = budgets(clock, read_book(path))
        ledger = Ledger(path, kept, save_s=60.0)
        await ledger.start()
        kept.take("a", allowance, 0.5)
        await ledger.stop()
    assert read_book(path).tenants["a"].escalations == 2
    kept = budgets(clock, read_book(path))
    assert [kept.take("a", allowance, 0.5) for _ in range(2)] == [True, False]


async def test_it_is_saved_while_it_runs_and_only_where_it_has_changed(tmp_path: Path) -> None:
    path, kept = tmp_path / FILE, budgets(Clock())
    ledger = Ledger(path, kept, save_s=0.01)
    await ledger.start()
    await asyncio.sleep(0.05)
    assert not path.exists()
    kept.take("a", Allowance(escalations_per_day=3), 0.5)
    await until(path.exists)
    first = os.stat(path).st_mtime_ns
    await asyncio.sleep(0.05)
    assert os.stat(path).st_mtime_ns == first
    await ledger.stop()


@pytest.mark.parametrize("text", [b"", b"{", b'{"day": 5}', b"\xff", b'{"tenants": {"a": 1}}'])
def test_a_book_that_cannot_be_read_is_set_aside(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / FILE
    path.write_bytes(text)
    assert read_book(path) == Book()
    assert path.with_suffix(".corrupt").read_bytes() == text


async def test_where_it_cannot_be_written_requests_go_on_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    kept = budgets(Clock())
    ledger = Ledger(blocked / FILE, kept, save_s=0.01)
    await ledger.start()
    kept.take("a", Allowance(escalations_per_day=3), 0.5)
    await asyncio.sleep(0.1)
    await ledger.stop()
    assert [record.levelname for record in caplog.records if "cannot be written" in record.message] == ["ERROR"]


@pytest.fixture
def asking(tmp_path: Path) -> dict[str, Any]:
    """The keys of a router whose kiosk may cost something; `more` of its token is to be appended."""
    path = tmp_path / "tokens.toml"
    digest = hashlib.sha256(b"s3cret").hexdigest()
    path.write_text(f'[[tokens]]\nname = "kiosk"\nsha256 = "{digest}"\n')
    return {"tokens_file": str(path), "state_dir": str(tmp_path / "state")}


def allow(asking: dict[str, Any], more: str) -> None:
    with Path(asking["tokens_file"]).open("a") as file:
        file.write(more + "\n")


async def asked(client: Client, **sent: str) -> tuple[int, str, str, str]:
    response, _ = await client.predict(KIOSK | sent)
    told = response.headers
    return response.status, told[headers.TIER], told[headers.REASON], told[headers.DEGRADED]


DOUBTED, SPENT = (200, "cloud", "doubtful", "false"), (200, "edge", "budget", "true")


async def test_what_is_doubted_beyond_the_day_stays_at_the_edge_and_a_restart_refills_nothing(
    router: Route,  # noqa: F811
    edge: Server,  # noqa: F811
    cloud: Server,  # noqa: F811
    asking: dict[str, Any],
) -> None:
    allow(asking, "escalations_per_day = 2")
    edge.confidence = 0.3
    nodes = [static("edge-fra", edge.url)]
    client = await router(nodes, [cloud.url], **asking)
    assert [await asked(client) for _ in range(4)] == [DOUBTED, DOUBTED, SPENT, SPENT]
    assert len(cloud.seen) == 2
    path = Path(asking["state_dir"], FILE)
    await until(lambda: path.exists() and read_book(path).tenants["kiosk"].escalations == 2)
    again = await router(nodes, [cloud.url], **asking)
    assert await asked(again) == SPENT
    response, told = await again.predict(KIOSK)
    assert headers.LATE not in response.headers, "what is not paid for does not come later either"
    assert msgspec.json.decode(told)["reason"] == "budget"


async def test_a_cost_budget_counts_every_answer_of_the_cloud(
    router: Route,  # noqa: F811
    edge: Server,  # noqa: F811
    cloud: Server,  # noqa: F811
    asking: dict[str, Any],
) -> None:
    allow(asking, "cost_per_day = 1.0")
    edge.confidence, edge.status = 0.3, 500
    client = await router([static("edge-fra", edge.url)], [cloud.url], cloud_cost_per_request=0.4, **asking)
    assert (await asked(client))[:3] == (200, "cloud", "no-edge")
    edge.status = 200
    assert [await asked(client) for _ in range(2)] == [DOUBTED, SPENT]
    edge.status = 500
    assert (await asked(client))[:3] == (200, "cloud", "no-edge"), "never an error for money"


async def test_who_asks_for_the_cloud_always_gets_it_as_long_as_he_may(
    router: Route,  # noqa: F811
    edge: Server,  # noqa: F811
    cloud: Server,  # noqa: F811
    asking: dict[str, Any],
) -> None:
    allow(asking, "escalations_per_s = 0.001")
    client = await router([static("edge-fra", edge.url)], [cloud.url], **asking)
    always = {headers.ESCALATION: "always"}
    assert await asked(client, **always) == (200, "cloud", "asked-always", "false")
    assert not edge.seen
    assert await asked(client, **always) == SPENT
    assert len(cloud.seen) == 1


async def test_who_has_no_limit_goes_on(
    router: Route,  # noqa: F811
    cloud: Server,  # noqa: F811
    start: Start,
    asking: dict[str, Any],
) -> None:
    doubtful = await start("edge-ams")
    doubtful.confidence = 0.3
    client = await router([static("edge-ams", doubtful.url)], [cloud.url], cloud_cost_per_request=5.0, **asking)
    assert {await asked(client) for _ in range(5)} == {DOUBTED}
    assert "state" not in os.listdir(os.path.dirname(asking["state_dir"]))


async def test_a_late_answer_is_an_escalation_too_and_one_that_failed_was_paid_for(rig: BuildRig, start: Start) -> None:
    node, big = await start("edge-fra"), await start("cloud", tier="cloud", answer="7")
    made = rig([static("edge-fra", node.url)], [big.url])
    node.confidence, made.holder._max_escalations = 0.3, 0

    async def late(request_id: str) -> bool:
        terms = Terms(request_id=request_id)
        asked = msgspec.structs.replace(call(), tenant="kiosk", allowance=Allowance(escalations_per_day=2), terms=terms)
        settled = await made.proxy.answer(asked)
        assert (settled.tier, settled.degraded) == ("edge", True)
        return settled.late

    assert [await late("a"), await late("b"), await late("c")] == [True, True, False]
    made.budgets.book.tenants["kiosk"].escalations = 1
    made.holder._max_escalations, big.status = 256, 503
    assert await late("d"), "it failed, and comes late for what it cost"
    assert not await late("e")
