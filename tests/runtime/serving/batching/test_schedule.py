"""What the rules make of a load, simulated: goodput, deadlines, recovery, bounds, truthful refusals, probing."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.serving.batching import schedule as rules
from runtime.serving.batching.refusals import Refused
from runtime.serving.batching.schedule import PROBE_S, Schedule
from runtime.serving.batching.service_times import ServiceTimes
from tests.runtime.serving.batching.simulation import (
    Arrival,
    Fate,
    Request,
    Simulated,
    jittered,
    known,
    latencies_s,
    merged,
    poisson,
)

Curve = Callable[[int], float]
CURVES: dict[str, Curve] = {
    "batching costs": lambda rows: 0.0055 * rows**1.1,
    "batching gains nothing": lambda rows: 0.0055 * rows,
    "batching pays": lambda rows: 0.004 + 0.0005 * rows,
}
OVERLOAD_S, AFTER_S = 6.0, 4.0


def capacity(curve: Curve) -> float:
    return max(size / curve(size) for size in (1, 2, 4, 8, 16, 32))


def request(level: int = 2, *, expires_at_s: float, rows: int = 1) -> Request:
    arrival = Arrival(0.0, expires_at_s, level, rows)
    return Request(rows=rows, key="", level=level, since_s=0.0, expires_at_s=expires_at_s, arrival=arrival)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("deadline_s", [0.1, 0.5])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_at_twice_the_load_nearly_all_capacity_answers_in_time_and_it_recovers(
    name: str, deadline_s: float, lanes: int
) -> None:
    curve, rng = CURVES[name], random.Random(1)

    def engine(rows: int, _: float) -> float:
        return curve(rows) * rng.lognormvariate(0.0, 0.1)

    rate = lanes * capacity(curve)
    load = merged(
        poisson(2 * rate, OVERLOAD_S, deadline_s=deadline_s, rng=rng),
        poisson(0.5 * rate, AFTER_S, deadline_s=deadline_s, rng=rng, from_s=OVERLOAD_S),
    )
    schedule: Schedule[Request] = Schedule(known(32, lambda rows, _: curve(rows)), max_waiting=256, lanes=lanes)
    fates = Simulated(schedule, engine).run(load)
    assert len(fates) == len(load)
    assert all(fate.in_time for fate in fates if fate.answered)
    in_overload = [fate for fate in fates if fate.answered and fate.arrival.at_s < OVERLOAD_S]
    assert len(in_overload) >= 0.95 * rate * OVERLOAD_S
    assert not [fate for fate in fates if not fate.answered and fate.arrival.at_s > OVERLOAD_S + 2.0]


def test_pauses_and_noise_of_a_machine_cost_little() -> None:
    curve, rng = CURVES["batching pays"], random.Random(3)
    rate = capacity(curve)
    fates = Simulated(Schedule(known(32, lambda rows, _: curve(rows)), max_waiting=256), jittered(curve, rng)).run(
        poisson(2 * rate, 6.0, deadline_s=0.2, rng=rng)
    )
    assert all(fate.in_time for fate in fates if fate.answered)
    assert len(latencies_s(fates)) >= 0.9 * rate * 6.0


def let_in_for_nothing(lanes: int) -> float:
    """The share of those let in at twice the load who were not answered, once that had gone on for a while."""
    curve, rng = CURVES["batching gains nothing"], random.Random(3)
    load = poisson(2 * lanes * capacity(curve), 12.0, deadline_s=0.5, rng=rng)

    def engine(rows: int, _: float) -> float:
        return curve(rows) * rng.lognormvariate(0.0, 0.3)

    times = known(8, lambda rows, _: curve(rows))
    fates = Simulated(Schedule(times, max_waiting=256, lanes=lanes), engine).run(load)
    let_in = [fate for fate in fates if fate.arrival.at_s > 4.0 and fate.end_s > fate.arrival.at_s]
    return len([fate for fate in let_in if not fate.answered]) / len(let_in)


@pytest.mark.parametrize("lanes", [1, 2])
def test_hardly_anybody_is_let_in_who_is_then_not_answered(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert let_in_for_nothing(lanes) <= 2 * (1.0 - rules.KEPT)
    monkeypatch.setattr(rules, "_SLACK_MOST", 0.0)
    assert let_in_for_nothing(lanes) > 3 * (1.0 - rules.KEPT)


def test_it_learns_without_a_warm_up_that_batching_pays() -> None:
    curve, rng = CURVES["batching pays"], random.Random(4)
    rate = capacity(curve)
    simulated = Simulated(Schedule(ServiceTimes(32), max_waiting=256), lambda rows, _: curve(rows))
    fates = simulated.run(poisson(1.5 * rate, 4.0, deadline_s=0.5, rng=rng))
    assert len([fate for fate in fates if fate.answered]) >= 0.9 * rate * 4.0


@given(
    st.integers(0, 1000), st.integers(1, 40), st.sampled_from(sorted(CURVES)), st.floats(0.3, 4.0), st.integers(1, 3)
)
@settings(max_examples=25)
def test_bounds_work_conservation_and_no_late_answer_under_any_load(
    seed: int, max_waiting: int, name: str, load: float, lanes: int
) -> None:
    curve, rng = CURVES[name], random.Random(seed)
    times = known(8, lambda rows, _: curve(rows))
    schedule: Schedule[Request] = Schedule(times, max_waiting=max_waiting, lanes=lanes)
    simulated = Simulated(schedule, jittered(curve, rng, spread=0.5))
    rate = load * lanes * capacity(curve) / 3
    arrivals = merged(
        *(poisson(rate, 0.5, deadline_s=rng.uniform(0.01, 1.0), rng=rng, level=level) for level in (1, 2, 3))
    )
    fates = simulated.run(arrivals)
    assert len(fates) == len(arrivals)
    assert all(fate.in_time for fate in fates if fate.answered)
    assert simulated.idle_with_work == 0
    assert all(len(batch) <= 8 for batch in simulated.batches)
    assert schedule.line.waiting == schedule.line.rows == 0
    counted = {reason: count for reason, count in schedule.refused.items() if count}
    assert Counter(fate.reason for fate in fates if fate.reason not in ("", "expired")) == counted


def test_retry_after_is_when_the_same_request_would_be_taken() -> None:
    times = known(1, lambda rows, _: 0.1)
    schedule: Schedule[Request] = Schedule(times, max_waiting=100)
    first = request(expires_at_s=10)
    schedule.admit(first, 0.0)
    schedule.begin(schedule.next(0.0)[0], 0.0)
    for _ in range(5):
        schedule.admit(request(expires_at_s=10), 0.0)
    # An earlier deadline goes first: only the run under way is before it.
    assert schedule.admit(request(expires_at_s=0.26), 0.0) is None
    with pytest.raises(Refused) as refused:
        schedule.admit(request(3, expires_at_s=0.5), 0.0)
    assert (refused.value.reason, refused.value.code) == ("late", "overloaded")
    assert refused.value.retry_after_s == pytest.approx(0.1 + 6 * 0.1 + 0.15 - 0.5)


@pytest.mark.parametrize("lanes", [1, 2])
def test_of_many_who_come_at_once_to_an_idle_engine_only_those_are_let_in_who_will_be_in_time(lanes: int) -> None:
    schedule: Schedule[Request] = Schedule(known(1, lambda rows, _: 0.01), max_waiting=256, lanes=lanes)
    refusals = [refusal_of(schedule.admit, request(expires_at_s=10.05), 10.0) for _ in range(100)]
    # Each lane ends its runs 10, 20, 30, ... ms later, and the last of them is sure to take no more than 15 ms.
    assert refusals.count("") == pytest.approx(4 * lanes, abs=1)
    assert schedule.refused["late"] == 100 - refusals.count("")


def test_with_lanes_a_newcomer_is_taken_by_when_one_of_them_is_free() -> None:
    schedule: Schedule[Request] = Schedule(known(1, lambda rows, _: 0.1), max_waiting=100, lanes=2)
    for began_s in (0.0, 0.06):
        schedule.admit(request(expires_at_s=10), began_s)
        schedule.begin(schedule.next(began_s)[0], began_s)
    # The lanes are free at 0.1 and 0.16, and to be sure of its own run it takes 0.15.
    with pytest.raises(Refused) as refused:
        schedule.admit(request(expires_at_s=0.24), 0.06)
    assert refused.value.reason == "late"
    schedule.admit(request(expires_at_s=0.26), 0.06)
    # Behind that one the first is free at 0.2: until 0.18, where both are equally full, it would have taken the work.
    with pytest.raises(Refused) as refused:
        schedule.admit(request(expires_at_s=0.32), 0.06)
    assert refused.value.retry_after_s == pytest.approx(0.18 + 0.15 - 0.32)
    schedule.admit(request(expires_at_s=0.34), 0.06)


def test_a_lane_that_is_free_makes_a_newcomer_wait_for_nobody() -> None:
    schedule: Schedule[Request] = Schedule(known(1, lambda rows, _: 0.1), max_waiting=100, lanes=2)
    schedule.admit(request(expires_at_s=10), 0.0)
    first = schedule.next(0.0)[0]
    schedule.begin(first, 0.0)
    schedule.admit(request(expires_at_s=0.11), 0.0)
    schedule.begin(schedule.next(0.0)[0], 0.0)
    with pytest.raises(Refused, match="would answer in about 250 ms"):
        schedule.admit(request(expires_at_s=0.2), 0.0)
    schedule.end(first, engine_s=0.1, whole_s=0.1, now_s=0.1, sound=True)
    schedule.admit(request(expires_at_s=0.21), 0.1)


@pytest.mark.parametrize(
    ("curve", "waiting", "sizes"),
    [
        pytest.param(lambda rows: 0.008 + 0.01 * rows, 2, [1, 1], id="two"),
        pytest.param(lambda rows: 0.015 + 0.01 * rows, 7, [4, 3], id="seven"),
        pytest.param(lambda rows: 0.01 + 0.001 * rows, 2, [2], id="together they hardly take longer than one"),
        pytest.param(lambda rows: 0.01 + 0.001 * rows, 16, [16], id="16 take less than one and a half times as long"),
        pytest.param(lambda rows: 0.01 + 0.001 * rows, 32, [16, 16], id="32 take one and a half times as long"),
    ],
)
def test_what_waits_is_spread_over_idle_lanes_where_it_then_ends_clearly_sooner(
    curve: Curve, waiting: int, sizes: list[int]
) -> None:
    schedule: Schedule[Request] = Schedule(known(32, lambda rows, _: curve(rows)), max_waiting=100, lanes=2)
    for _ in range(waiting):
        schedule.admit(request(expires_at_s=10), 0.0)
    batches = []
    for lanes in (2, 1):
        batch, _ = schedule.next(0.0, lanes=lanes)
        if batch:
            schedule.begin(batch, 0.0)
            batches.append(len(batch))
    assert batches == sizes


def test_what_no_engine_could_do_in_time_is_told_apart_from_a_queue() -> None:
    schedule: Schedule[Request] = Schedule(known(1, lambda rows, _: 0.1), max_waiting=100)
    with pytest.raises(Refused) as refused:
        schedule.admit(request(expires_at_s=0.05), 0.0)
    assert (refused.value.reason, refused.value.code) == ("no-time", "deadline_exceeded")
    with pytest.raises(Refused, match="before the model could run"):
        schedule.admit(request(expires_at_s=0.0), 0.0)
    schedule.admit(request(expires_at_s=0.11), 0.0)


def test_an_estimate_that_nobody_can_meet_is_asked_again() -> None:
    """A machine that was slow for a while: its model would be refused for ever if nothing were run."""
    schedule: Schedule[Request] = Schedule(known(1, lambda rows, _: 10.0), max_waiting=100)
    arrivals = [Arrival(at * 0.05, 0.2) for at in range(1200)]
    fates = Simulated(schedule, lambda rows, _: 0.01).run(arrivals)
    assert {fate.reason for fate in fates if fate.arrival.at_s < PROBE_S} == {"no-time"}
    assert all(fate.answered for fate in fates if fate.arrival.at_s > 50.0)


def test_a_full_line_makes_room_for_a_higher_priority_only() -> None:
    schedule: Schedule[Request] = Schedule(ServiceTimes(1), max_waiting=2)
    low, middle = request(3, expires_at_s=5), request(2, expires_at_s=9)
    schedule.admit(low, 0.0)
    schedule.admit(middle, 0.0)
    for level in (2, 3):
        with_level = request(level, expires_at_s=1)
        if level == 3:
            with pytest.raises(Refused, match="wait for this model already"):
                schedule.admit(with_level, 0.0)
        else:
            displaced = schedule.admit(with_level, 0.0)
            assert displaced is not None
            assert displaced[0] is low
            assert displaced[1].reason == "displaced"
    assert schedule.refused["full"] == schedule.refused["displaced"] == 1


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.floats(0.001, 0.5)), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 2),
)
def test_what_is_foreseen_is_what_happens_to_who_comes(
    coming: list[tuple[int, int, float]], max_waiting: int, lanes: int
) -> None:
    schedule: Schedule[Request] = Schedule(
        known(4, lambda rows, _: 0.01 + 0.02 * rows), max_waiting=max_waiting, lanes=lanes
    )
    for at, (rows, level, left_s) in enumerate(coming):
        now_s = 0.005 * at
        newcomer = request(level, rows=rows, expires_at_s=now_s + left_s)
        foreseen = refusal_of(schedule.foresee, newcomer, now_s)
        assert foreseen == refusal_of(schedule.admit, newcomer, now_s)
        if at % 3 == 0:
            batch, _ = schedule.next(now_s)
            if batch:
                schedule.begin(batch, now_s)
                schedule.end(batch, engine_s=0.03, whole_s=0.03, now_s=now_s, sound=True)


def refusal_of(ask: Callable[[Request, float], object], newcomer: Request, now_s: float) -> str:
    try:
        ask(newcomer, now_s)
    except Refused as refusal:
        return str(refusal)
    return ""


def test_high_priority_is_hardly_touched_by_a_flood_of_low() -> None:
    curve, rng = CURVES["batching gains nothing"], random.Random(5)
    rate = capacity(curve)
    load = merged(
        poisson(0.3 * rate, 6.0, deadline_s=0.5, rng=rng, level=1),
        poisson(2 * rate, 6.0, deadline_s=0.5, rng=rng, level=3),
    )
    fates = Simulated(
        Schedule(known(32, lambda rows, _: curve(rows)), max_waiting=256), lambda rows, _: curve(rows)
    ).run(load)
    high = [fate for fate in fates if fate.arrival.level == 1]
    assert all(fate.answered for fate in high)
    assert latencies_s(high)[int(0.9 * len(high))] < 5 * curve(1)


def test_low_priority_goes_on_beside_a_flood_of_high() -> None:
    curve, rng = CURVES["batching gains nothing"], random.Random(6)
    rate = capacity(curve)
    load = merged(
        poisson(2 * rate, 6.0, deadline_s=0.5, rng=rng, level=1),
        poisson(0.2 * rate, 6.0, deadline_s=2.0, rng=rng, level=3),
    )
    schedule: Schedule[Request] = Schedule(known(32, lambda rows, _: curve(rows)), max_waiting=2000)
    fates: list[Fate] = Simulated(schedule, lambda rows, _: curve(rows)).run(load)
    assert len([fate for fate in fates if fate.answered and fate.arrival.level == 3]) > 0


def test_the_limit_never_refuses_what_would_be_served_within_a_second() -> None:
    schedule: Schedule[Request] = Schedule(known(4, lambda rows, _: 0.01 * rows), max_waiting=256)
    schedule.gradient.limit = 1.0
    assert schedule.limit == math.floor(1.0 / schedule.times.pace_s(4))
    unknown: Schedule[Request] = Schedule(ServiceTimes(4), max_waiting=256)
    assert unknown.limit == 260
