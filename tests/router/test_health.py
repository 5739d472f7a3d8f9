"""The table of probes: three bad ones in a row take a node away, two good ones bring it back, whatever came before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.health import _TABLE, FALL, RISE, Event, Health

EVENTS: tuple[Event, ...] = ("good", "bad")
_BAD: list[Event] = ["bad"] * FALL
_GOOD: list[Event] = ["good"] * RISE
events = st.lists(st.sampled_from(EVENTS), max_size=40)


def after(told: list[Event]) -> Health:
    health = Health()
    for event in told:
        health.on(event)
    return health


def test_every_state_hears_every_event() -> None:
    assert set(_TABLE) == {(state, event) for state in ("unknown", "online", "offline") for event in EVENTS}


@given(events)
def test_the_last_few_decide_whatever_came_before(before: list[Event]) -> None:
    assert after([*before, *_BAD]).state == "offline"
    assert after([*before, *_GOOD]).state == "online"


@given(events, st.sampled_from(EVENTS))
def test_fewer_change_nothing(before: list[Event], event: Event) -> None:
    """A state changes with the last of as many probes in a row against it; the first good one of all is enough."""
    was, now = after(before), after([*before, event])
    in_a_row = 0
    for each in reversed(before):
        if each != event:
            break
        in_a_row += 1
    if now.state == was.state:
        return
    if was.state == "unknown" and event == "good":
        assert "good" not in before
    else:
        assert in_a_row + 1 == (FALL if event == "bad" else RISE)


@given(events)
def test_it_is_settled_while_it_is_well_and_nothing_speaks_against_it(told: list[Event]) -> None:
    health = after(told)
    assert health.settled == (health.state == "online" and told[-1] == "good")
