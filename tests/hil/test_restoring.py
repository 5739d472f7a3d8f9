from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hil.restoring import Standing, way_back

DIGESTS = st.sampled_from(["a", "b", "c", "d"])


def after(now: Standing, rollouts: tuple[str, ...]) -> Standing:
    """What a node keeps: a bundle that takes over makes the one before it the previous one."""
    for digest in rollouts:
        assert digest != now.current, "a rollout of what is assigned already is refused"
        now = Standing(digest, now.current)
    return now


@given(DIGESTS, st.just("") | DIGESTS, DIGESTS, st.just("") | DIGESTS)
def test_the_way_back_ends_where_it_began(current: str, previous: str, was: str, was_previous: str) -> None:
    before = Standing(was, "" if was_previous == was else was_previous)
    now = after(Standing(current, previous), way_back(Standing(current, previous), before))
    assert now.current == before.current
    assert before.previous in ("", now.previous)


def test_a_node_that_was_not_changed_gets_no_rollout() -> None:
    assert way_back(Standing("a", "b"), Standing("a", "b")) == ()
    assert way_back(Standing("a", "c"), Standing("a", "")) == ()
