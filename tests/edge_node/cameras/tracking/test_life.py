"""The states of a track and what its detections say together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.tracking.life import Life


def begun(*votes: tuple[int, float]) -> Life:
    life = Life(0.0, 0.0)
    for label, score in votes:
        life.note(label, score, 1.0, 1.0)
    return life


def test_found_again_after_it_was_lost_is_broken_for_good() -> None:
    life = begun((0, 0.9))
    life.on("proven")
    assert not life.broken
    life.on("missing")
    assert (life.state, life.broken) == ("lost", False)
    life.note(0, 0.9, 2.0, 2.0)
    assert (life.state, life.broken) == ("confirmed", True)
    life.note(0, 0.9, 3.0, 3.0)
    assert life.broken


@pytest.mark.parametrize("event", ["found", "proven", "missing", "over"])
def test_nothing_comes_after_the_end(event: str) -> None:
    life = begun((0, 0.9))
    life.on("over")
    with pytest.raises(KeyError):
        life.on(event)  # type: ignore[arg-type]


def test_votes_weigh_what_their_scores_say() -> None:
    assert begun((3, 0.4), (3, 0.4), (5, 0.9)).label == 5
    assert begun((3, 0.5), (3, 0.5), (5, 0.9)).label == 3


@pytest.mark.parametrize(("others", "wavers"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_label_wavers_from_a_quarter_of_other_votes_on(others: int, wavers: bool) -> None:
    assert begun(*[(1, 0.5)] * 6, *[(2, 0.5)] * others).broken is wavers


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.125, 1)), min_size=1), st.randoms(use_true_random=False))
def test_the_label_is_one_of_the_votes_with_most_weight(votes: list[tuple[int, float]], random: object) -> None:
    weights = {label: sum(score for other, score in votes if other == label) for label, _ in votes}
    assert weights[begun(*votes).label] == max(weights.values())
