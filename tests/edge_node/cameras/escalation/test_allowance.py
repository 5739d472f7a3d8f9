"""How many bytes may leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.escalation.allowance import Allowance


@given(
    st.integers(0, 1_000_000),
    st.lists(st.tuples(st.integers(0, 500_000), st.floats(0, 7200)), max_size=50),
)
def test_no_hour_sees_more_than_two_hours_worth_and_no_day_more_than_its_share(
    per_hour: int, wishes: list[tuple[int, float]]
) -> None:
    allowance, now_s, taken = Allowance(per_hour, 0.0), 0.0, 0
    for size, pause_s in wishes:
        now_s += pause_s
        if allowance.take(size, now_s):
            taken += size
        assert taken <= per_hour * (1 + now_s / 3600) + 1


def test_what_is_refused_costs_nothing() -> None:
    allowance = Allowance(1000, 0.0)
    assert not allowance.take(1001, 0.0)
    assert allowance.take(1000, 0.0)
    assert not allowance.take(1, 0.0)
    assert allowance.take(500, 1800.0)
