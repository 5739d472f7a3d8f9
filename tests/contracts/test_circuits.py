"""The circuit: opens after five failures, asks again one at a time, and never stays shut for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.circuits import BAD_OUTCOMES, FAILURES_TO_OPEN, OPEN_S, Circuit, Event, blames

ENDINGS: tuple[Event, ...] = ("succeeded", "failed", "abandoned")


def failed(circuit: Circuit, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        circuit.on("started", now_s)
        circuit.on("failed", now_s)


def test_five_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    circuit = Circuit()
    failed(circuit, FAILURES_TO_OPEN - 1)
    circuit.on("succeeded", 0.0)
    failed(circuit, FAILURES_TO_OPEN - 1)
    assert circuit.allows(0.0)
    failed(circuit, 1)
    assert not circuit.allows(0.0)
    assert circuit.allows(OPEN_S)


def test_half_of_many_failing_opens_it_though_never_five_in_a_row() -> None:
    circuit, asked = Circuit(), 0
    while circuit.allows(0.0) and asked < 100:
        asked += 1
        circuit.on("started", 0.0)
        circuit.on("failed" if asked % 3 else "succeeded", 0.0)
    assert BAD_OUTCOMES <= asked < 40


def test_a_few_failures_among_many_never_open_it() -> None:
    circuit = Circuit()
    for number in range(1000):
        circuit.on("started", 0.0)
        circuit.on("failed" if number % 4 == 0 else "succeeded", 0.0)
    assert circuit.allows(0.0)


def test_it_stays_closed_as_long_as_it_may_not_open() -> None:
    allowed: list[bool] = [False]
    circuit = Circuit(lambda: allowed[0])
    failed(circuit, 3 * FAILURES_TO_OPEN)
    assert circuit.allows(0.0)
    allowed[0] = True
    failed(circuit, 1)
    assert not circuit.allows(0.0)


def test_one_probe_at_a_time_decides() -> None:
    circuit = Circuit()
    failed(circuit, FAILURES_TO_OPEN)
    circuit.on("started", OPEN_S)
    assert not circuit.allows(OPEN_S + 100)
    circuit.on("succeeded", OPEN_S)
    assert circuit.allows(OPEN_S)
    failed(circuit, FAILURES_TO_OPEN - 1, OPEN_S)
    assert circuit.allows(OPEN_S)


def test_every_failed_probe_is_followed_by_another_a_second_later() -> None:
    circuit, now_s, waits = Circuit(), 0.0, []
    failed(circuit, FAILURES_TO_OPEN)
    for _ in range(7):
        waits.append(circuit.open_until_s - now_s)
        now_s = circuit.open_until_s
        failed(circuit, 1, now_s)
    assert waits == [OPEN_S] * 7


def test_a_probe_that_was_given_up_lets_another_go() -> None:
    circuit = Circuit()
    failed(circuit, FAILURES_TO_OPEN)
    circuit.on("started", OPEN_S)
    circuit.on("abandoned", OPEN_S)
    assert circuit.allows(OPEN_S)


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(ENDINGS)), max_size=60))
def test_it_always_comes_back(drawn: list[tuple[float, Event]]) -> None:
    """Requests only start when allowed, and each ends."""
    circuit, now_s = Circuit(), 0.0
    for pause_s, ending in drawn:
        now_s += pause_s
        if circuit.allows(now_s):
            circuit.on("started", now_s)
            circuit.on(ending, now_s)
        assert circuit.allows(now_s + OPEN_S)


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_who_left_no_time_is_to_blame(allowed_ms: float, expected_ms: float) -> None:
    if allowed_ms <= expected_ms:
        assert not blames(allowed_ms, expected_ms)
    assert blames(3 * expected_ms + 101, expected_ms)
