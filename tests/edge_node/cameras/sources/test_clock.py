"""When pictures were taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.sources.clock import CaptureClock

NOW_S = 1.7e9


@given(st.lists(st.floats(0.0, 0.5), min_size=2, max_size=200))
def test_what_waits_on_its_way_is_not_taken_for_late(delays_s: list[float]) -> None:
    """From the first quick packet on, times are evenly spread, but for what the clocks may drift."""
    clock, between_s = CaptureClock(), 0.1
    told = [clock.at_s(n * between_s, NOW_S + n * between_s + delay) for n, delay in enumerate([0.0, *delays_s])]
    for number, at_s in enumerate(told):
        assert at_s == pytest.approx(NOW_S + number * between_s, abs=0.001 * number * between_s + 1e-4)


@given(st.lists(st.tuples(st.floats(-5, 5) | st.none(), st.floats(0, 20), st.floats(-30, 30) | st.none()), max_size=50))
def test_times_never_fall_and_are_never_later_than_their_packets(
    told: list[tuple[float | None, float, float | None]],
) -> None:
    clock, arrived_s, last_s = CaptureClock(), NOW_S, 0.0
    for stamp_s, passed_s, off_s in told:
        arrived_s += passed_s
        at_s = clock.at_s(stamp_s, arrived_s, None if off_s is None else arrived_s + off_s)
        assert last_s <= at_s <= arrived_s
        last_s = at_s


def test_the_cameras_own_clock_is_believed_where_it_can_be_right() -> None:
    clock = CaptureClock()
    assert clock.at_s(5.0, NOW_S + 0.3, NOW_S - 5.0) == NOW_S
    assert clock.told
    assert clock.at_s(6.0, NOW_S + 1.3, NOW_S - 3600.0) == NOW_S + 1.3
    assert not clock.told


def test_a_clock_of_this_machine_that_is_set_back_takes_the_times_with_it() -> None:
    clock = CaptureClock()
    assert clock.at_s(0.0, NOW_S) == NOW_S
    assert clock.at_s(0.1, NOW_S - 3600.0) == NOW_S - 3600.0
    assert clock.at_s(0.2, NOW_S - 3599.9) == pytest.approx(NOW_S - 3599.9, abs=1e-3)
