"""The Pareto front is non-dominated and complete."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from model_compiler.reporting.fronts import Point, beats, by_bytes, by_latency, front
from tests.model_compiler.reporting.example import candidates

numbers = st.integers(0, 6)
# Few distinct values, so that equals and ties come up.
points = st.lists(st.builds(Point, st.sampled_from("abc"), numbers, numbers), max_size=14)


@given(points)
def test_nothing_on_the_front_is_beaten(all_of_them: list[Point]) -> None:
    found = front(all_of_them)
    assert not [pair for pair in itertools.product(all_of_them, found) if beats(*pair)]


@given(points)
def test_whatever_nothing_beats_is_on_the_front(all_of_them: list[Point]) -> None:
    unbeaten = [each for each in all_of_them if not any(beats(other, each) for other in all_of_them)]
    assert sorted(map(str, front(all_of_them))) == sorted(map(str, unbeaten))


@given(points, st.randoms())
def test_the_order_that_they_come_in_does_not_matter(all_of_them: list[Point], random: object) -> None:
    shuffled = sorted(all_of_them, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert front(shuffled) == front(all_of_them)


@given(points)
def test_it_rises_from_cheap_to_dear(all_of_them: list[Point]) -> None:
    found = front(all_of_them)
    assert [each.cost for each in found] == sorted(each.cost for each in found)
    assert [each.worth for each in found] == sorted(each.worth for each in found)


def test_only_what_was_timed_is_held_against_latency() -> None:
    tried = candidates()
    assert len(by_bytes(tried)) == len(tried.tried) + 1
    assert {point.name for _, point in by_bytes(tried)} - {point.name for _, point in by_latency(tried)} == {
        "pruned, fp16",
        "int8, TensorRT",
    }
