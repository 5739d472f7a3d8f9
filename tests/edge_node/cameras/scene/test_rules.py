"""Rules: one beginning and one end for every episode."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.scene.config import RuleConfig
from edge_node.cameras.scene.events import RuleBegan, RuleEnded
from edge_node.cameras.scene.rules import Rules
from edge_node.cameras.scene.zones import Present

LOITER = RuleConfig("loiter", "yard", ("person",), for_s=5.0)


def told(rules: Rules, at_s: float, *present: Present) -> list[RuleBegan | RuleEnded]:
    return list(rules.update(lambda zone: present if zone == "yard" else (), at_s))


def person(since_s: float, number: int = 1, label: str = "person") -> Present:
    return Present(number, label, since_s)


def test_a_person_in_the_yard_for_five_seconds() -> None:
    rules = Rules([LOITER])
    seconds = [told(rules, float(second), person(2.0)) for second in range(2, 12)]
    assert [event for events in seconds for event in events] == [RuleBegan("loiter", 1, (1,), 7.0)]
    assert told(rules, 12.0) == [RuleEnded("loiter", 1, 12.0, 5.0)]
    assert told(rules, 13.0) == []


def test_who_comes_one_after_the_other_has_not_stayed() -> None:
    rules = Rules([LOITER])
    assert not [
        event for second in range(40) for event in told(rules, float(second), person(second // 4 * 4.0, second))
    ]


def test_others_do_not_count() -> None:
    assert told(Rules([LOITER]), 100.0, person(0.0, label="car")) == []
    any_label = msgspec.structs.replace(LOITER, labels=())
    assert len(told(Rules([any_label]), 100.0, person(0.0, label="car"))) == 1


def test_as_many_as_it_asks_for_each_for_as_long() -> None:
    rules = Rules([msgspec.structs.replace(LOITER, at_least=3)])
    there = [person(0.0, 1), person(1.0, 2), person(2.0, 3), person(90.0, 4)]
    assert told(rules, 6.5, *there) == []
    assert told(rules, 7.0, *there) == [RuleBegan("loiter", 1, (1, 2, 3), 7.0)]
    assert told(rules, 8.0, *there[1:]) == [RuleEnded("loiter", 1, 8.0, 1.0)]


def test_after_it_is_over_it_rests() -> None:
    rules = Rules([msgspec.structs.replace(LOITER, for_s=0.0, cooldown_s=10.0)])
    assert len(told(rules, 0.0, person(0.0))) == 1
    assert len(told(rules, 1.0)) == 1
    assert [told(rules, 1.0 + second, person(2.0)) for second in range(1, 10)] == [[]] * 9
    assert told(rules, 11.0, person(2.0)) == [RuleBegan("loiter", 2, (1,), 11.0)]


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), max_size=80),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_episodes_begin_once_and_end_once_in_turn(
    steps: list[tuple[float, bool]], for_s: float, cooldown_s: float
) -> None:
    rules = Rules([msgspec.structs.replace(LOITER, for_s=for_s, cooldown_s=cooldown_s)])
    now_s, since_s, events, holding = 0.0, None, list[RuleBegan | RuleEnded](), 0
    for gap_s, there in steps:
        now_s += gap_s
        since_s = (now_s if since_s is None else since_s) if there else None
        held = since_s is not None and now_s - since_s >= for_s
        holding += held
        events += told(rules, now_s, *([person(since_s)] if since_s is not None else []))
        running = len(events) % 2 == 1
        assert not running or since_s is not None
        assert running or not held or now_s - events[-1].at_s < cooldown_s if events else not held
    assert [type(event) for event in events[::2]] == [RuleBegan] * len(events[::2])
    assert [type(event) for event in events[1::2]] == [RuleEnded] * len(events[1::2])
    assert [event.episode for event in events] == [1 + number // 2 for number in range(len(events))]
    for ended, began in zip(events[1::2], events[2::2], strict=False):
        assert began.at_s - ended.at_s >= cooldown_s - 1e-6
