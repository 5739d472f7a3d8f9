"""Deadlines: time left only shrinks, never below nothing, and a passed one says what it stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.deadlines import Deadline
from contracts.errors import FoothillError

moments = st.floats(0, 1e6)
lengths = st.floats(0, 600_000)


@given(length_ms=lengths, now_s=moments, later_s=st.floats(0, 1000))
def test_time_left_only_shrinks_and_never_below_nothing(length_ms: float, now_s: float, later_s: float) -> None:
    deadline = Deadline.after(length_ms, now_s=now_s)
    assert deadline.left_ms(now_s) == pytest.approx(length_ms, abs=1e-4)
    assert 0 <= deadline.left_ms(now_s + later_s) <= deadline.left_ms(now_s)
    assert deadline.left_s(now_s) == pytest.approx(deadline.left_ms(now_s) / 1000)


@given(length_ms=lengths, now_s=moments, later_s=st.floats(0, 1000))
def test_a_check_fails_exactly_when_nothing_is_left(length_ms: float, now_s: float, later_s: float) -> None:
    deadline = Deadline.after(length_ms, now_s=now_s)
    if deadline.left_ms(now_s + later_s) > 0:
        deadline.check(now_s + later_s, "the queue")
        return
    with pytest.raises(FoothillError, match="before the queue") as raised:
        deadline.check(now_s + later_s, "the queue")
    assert (raised.value.code, raised.value.retryable) == ("deadline_exceeded", True)
