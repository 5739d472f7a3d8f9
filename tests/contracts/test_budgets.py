"""The retry budget: never a storm, always a floor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.budgets import RetryBudget

steps = st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200)


@given(steps, st.floats(0, 1), st.floats(0, 3))
def test_retries_never_exceed_the_floor_or_the_share_of_any_ten_seconds(
    drawn: list[tuple[float, bool]], ratio: float, floor_per_s: float
) -> None:
    budget = RetryBudget(ratio=ratio, floor_per_s=floor_per_s)
    now_s = 0.0
    first: list[float] = []
    retried: list[float] = []
    for pause_s, is_retry in drawn:
        now_s += pause_s
        if not is_retry:
            first.append(now_s)
            budget.deposit(now_s)
        elif budget.withdraw(now_s):
            retried.append(now_s)
            recent = sum(at > now_s - 10 for at in retried)
            seen = sum(at > now_s - 10 for at in first)
            assert recent <= max(floor_per_s * 10, ratio * seen) + 1e-9


@given(st.floats(0.1, 20), st.integers(0, 1000))
def test_the_floor_stands_without_any_traffic(floor_per_s: float, start_s: int) -> None:
    budget = RetryBudget(ratio=0.0, floor_per_s=floor_per_s)
    granted = sum(budget.withdraw(start_s + 0.001 * number) for number in range(300))
    assert granted == min(300, int(floor_per_s * 10))
    assert budget.withdraw(start_s + 10.5) == (floor_per_s * 10 >= 1)


def test_the_balance_grows_with_traffic_and_comes_back() -> None:
    budget = RetryBudget(ratio=0.5, floor_per_s=0.1)
    for number in range(10):
        budget.deposit(number * 0.1)
    assert budget.balance(1.0) == 5.0
    assert [budget.withdraw(1.0) for _ in range(6)] == [True] * 5 + [False]
    assert budget.balance(30.0) == 1.0
