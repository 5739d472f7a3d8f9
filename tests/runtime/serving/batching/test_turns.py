"""Whose engine runs next: bounded runs at once, no idle slot, fair shares, and a bounded wait beside slow models."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from runtime.serving.batching.turns import Share, Turns

LENGTHS = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=6)


class Machine:
    """Models that always want to run, each run as long as the model's runs are; the clock jumps from end to end.

    As the batcher does it, a model asks for one lane at a time, and for the next as soon as it has that one.
    """

    def __init__(self, slots: int, lengths_s: list[float], lanes: list[int] | None = None) -> None:
        self.turns = Turns(slots)
        self.now_s = 0.0
        self.got_s = [0.0] * len(lengths_s)
        self.began_s: list[list[float]] = [[] for _ in lengths_s]
        self.most = 0
        self._ends: list[tuple[float, int]] = []
        self._idle = [*lanes] if lanes else [1] * len(lengths_s)
        self._asked: set[int] = set()
        self._lengths_s = lengths_s
        self._shares = [Share(partial(self._begin, at)) for at in range(len(lengths_s))]

    def want(self, model: int) -> None:
        self._asked.add(model)
        self.turns.ask(self._shares[model])

    def end_one(self, *, again: bool = True) -> None:
        self.now_s, model = heapq.heappop(self._ends)
        self.got_s[model] += self._lengths_s[model]
        self._idle[model] += 1
        again = again and model not in self._asked
        if again:
            self._asked.add(model)
        self.turns.done(self._shares[model], self._lengths_s[model], again=again)

    def running(self) -> int:
        return len(self._ends)

    def _begin(self, model: int) -> None:
        self.began_s[model].append(self.now_s)
        heapq.heappush(self._ends, (self.now_s + self._lengths_s[model], model))
        self.most = max(self.most, len(self._ends))
        self._asked.discard(model)
        self._idle[model] -= 1
        if self._idle[model]:
            self.want(model)


@given(LENGTHS, st.integers(1, 3))
def test_no_more_runs_than_slots_no_idle_slot_and_fair_times(lengths_s: list[float], slots: int) -> None:
    machine = Machine(slots, lengths_s)
    for model in range(len(lengths_s)):
        machine.want(model)
    for _ in range(300):
        assert machine.running() == min(slots, len(lengths_s))
        machine.end_one()
    assert machine.most <= slots
    if slots == 1:
        got = [*zip(machine.got_s, lengths_s, strict=True)]
        # Goyal et al. 1997, theorem 1. With more slots it holds only while no model wants two of them at once.
        assert all(abs(one - other) <= one_s + other_s + 1e-9 for one, one_s in got for other, other_s in got)


@given(LENGTHS, st.integers(1, 4), st.integers(0, 2))
def test_the_time_of_all_lanes_is_their_models(lengths_s: list[float], slots: int, more: int) -> None:
    machine = Machine(slots, lengths_s, [slots + more] * len(lengths_s))
    for model in range(len(lengths_s)):
        machine.want(model)
    for _ in range(300):
        assert machine.running() == slots
        machine.end_one()
        got = zip(machine.got_s, lengths_s, strict=True)
        assert all(
            abs(one - other) <= slots * (one_s + other_s) + 1e-9
            for (one, one_s), (other, other_s) in combinations(got, 2)
        )


def test_a_model_of_many_lanes_gets_no_more_than_models_of_one() -> None:
    machine = Machine(2, [0.01, 0.01, 0.01], [8, 1, 1])
    for model in range(3):
        machine.want(model)
    for _ in range(300):
        machine.end_one()
    assert [round(got_s, 1) for got_s in machine.got_s] == [1.0, 1.0, 1.0]


def test_a_model_of_many_lanes_takes_what_nobody_else_wants() -> None:
    machine = Machine(4, [0.01], [4])
    machine.want(0)
    assert machine.running() == 4


@given(LENGTHS, st.integers(0, 60), st.integers(1, 3))
def test_a_fast_model_beside_slow_ones_waits_for_one_run_of_each_at_most(
    lengths_s: list[float], before: int, lanes: int
) -> None:
    machine = Machine(1, [*lengths_s, 0.0001], [lanes] * (len(lengths_s) + 1))
    fast = len(lengths_s)
    for model in range(fast):
        machine.want(model)
    for _ in range(before):
        machine.end_one()
    asked_s = machine.now_s
    machine.want(fast)
    while not machine.began_s[fast]:
        machine.end_one()
    assert machine.began_s[fast][0] - asked_s <= sum(lengths_s) + 1e-9


def test_a_model_that_slept_has_saved_nothing_up() -> None:
    machine = Machine(1, [0.1, 0.1])
    machine.want(0)
    for _ in range(50):
        machine.end_one()
    machine.want(1)
    for _ in range(20):
        machine.end_one()
    assert len(machine.began_s[1]) in (10, 11)


def test_a_question_taken_back_is_not_granted() -> None:
    turns = Turns(1)
    granted: list[str] = []
    first, second, third = (Share(partial(granted.append, name)) for name in ("first", "second", "third"))
    for share in (first, second, third):
        turns.ask(share)
    turns.withdraw(second)
    turns.withdraw(second)
    turns.done(first, 1.0, again=False)
    assert granted == ["first", "third"]
