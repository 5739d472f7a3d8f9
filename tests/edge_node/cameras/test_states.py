"""States of a camera, and when it is tried again."""

from __future__ import annotations

import random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.states import DENIED_PAUSE_S, Change, Event, State, after, pause_s

EVENTS = st.sampled_from(get_args(Event))


def test_a_camera_goes_live_is_lost_and_comes_back() -> None:
    told = [Change("starting", 0.0)]
    for at_s, event in enumerate(("picture", "picture", "lost", "lost", "picture", "frozen", "dark", "picture"), 1):
        told.append(after(told[-1], event, float(at_s), "why" if event == "lost" else ""))  # type: ignore[arg-type]
    assert [change.state for change in told[1:]] == [
        *["live"] * 2,
        *["reconnecting"] * 2,
        *["live", "frozen", "dark", "live"],
    ]
    assert [change.since_s for change in told[1:]] == [1.0, 1.0, 3.0, 3.0, 5.0, 6.0, 7.0, 8.0]
    assert told[1] is told[2]
    assert told[3].why == "why"
    assert told[5].why == ""


@given(st.lists(EVENTS))
def test_what_was_stopped_or_has_ended_says_nothing_more(events: list[Event]) -> None:
    now = Change("starting", 0.0)
    for event in events:
        before, now = now, after(now, event, 1.0)
        if before.state == "stopped":
            assert now is before
        if before.state == "ended":
            assert now.state in ("ended", "stopped")
        assert now.state in get_args(State)


@given(st.integers(0, 1000), st.floats(0.5, 600.0), st.integers())
def test_pauses_double_up_to_the_longest(failures: int, longest_s: float, seed: int) -> None:
    rng = random.Random(seed)
    assert 0.25 <= pause_s("lost", failures, longest_s, rng) <= max(0.5, longest_s)
    assert 0.25 <= pause_s("lost", 0, longest_s, rng) <= 0.5
    assert pause_s("denied", failures, longest_s, rng) >= DENIED_PAUSE_S / 2
