"""Rollouts, one story at a time."""

from __future__ import annotations

import pytest

from fleet.rollouts.events import Pause, Promote, Resume, Retry, RollBack, Taken
from fleet.rollouts.plan import Policy
from fleet.rollouts.windows import Window
from tests.fleet.rollouts.fleet import DEADLINE_S, OLD, SILENCE_S, Fleet, plan_of

FOUR = dict.fromkeys("abcd", "b")


def policy(**changed: object) -> Policy:
    return Policy(**{"healthy_deadline_s": DEADLINE_S, **changed})  # type: ignore[arg-type]


def test_stages_follow_each_other_as_their_nodes_become_healthy() -> None:
    fleet = Fleet(plan_of("a", "bc"))
    assert fleet.has() == {"a": "a"}
    fleet.active("a")
    assert fleet.has() == {"a": "a", "b": "a", "c": "a"}
    fleet.active("b")
    assert fleet.phase == "staging"
    fleet.active("c")
    assert fleet.phase == "completed"


def test_no_more_nodes_are_in_work_than_may_be() -> None:
    fleet = Fleet(plan_of("abcd", policy=policy(max_parallel=2)))
    assert sorted(fleet.has()) == ["a", "b"]
    fleet.active("b")
    assert sorted(fleet.has()) == ["a", "b", "c"]
    fleet.active("a", "c", "d")
    assert fleet.phase == "completed"


def test_a_node_is_healthy_once_it_has_served_for_long_enough() -> None:
    fleet = Fleet(plan_of("a", policy=policy(min_healthy_s=10.0)))
    fleet.active("a")
    fleet.tick(9.0)
    assert (fleet.phase, fleet.node("a")) == ("staging", "settling")
    fleet.tick(1.0)
    assert fleet.phase == "completed"


def test_a_node_that_goes_while_it_settles_begins_again() -> None:
    fleet = Fleet(plan_of("a", policy=policy(min_healthy_s=10.0)))
    fleet.active("a")
    fleet.tick(9.0)
    fleet.seen("a", online=False)
    fleet.tick(5.0)
    fleet.seen("a", online=True)
    fleet.active("a")
    fleet.tick(9.0)
    assert fleet.node("a") == "settling"
    fleet.tick(1.0)
    assert fleet.phase == "completed"


@pytest.mark.parametrize("phase", ["failed", "reverted", "unloaded"])
def test_one_failure_sends_every_exposed_node_back(phase: str) -> None:
    fleet = Fleet(plan_of("ab", "cd"))
    fleet.active("a", "b")
    fleet.hear("c", phase, error="no room")  # type: ignore[arg-type]
    assert (fleet.phase, fleet.has()) == ("reverting", FOUR)
    assert "c failed" in fleet.rollout.head.reason
    fleet.active(*"abcd")
    assert (fleet.phase, fleet.rollout.count("reverted")) == ("rolled-back", 4)


def test_a_healthy_node_that_breaks_later_stops_it_too() -> None:
    fleet = Fleet(plan_of("ab", "cd"))
    fleet.active("a", "b")
    fleet.hear("a", "reverted", error="3 crashes in probation")
    assert (fleet.phase, fleet.has()) == ("reverting", FOUR)


def test_silence_is_failure_after_its_deadline() -> None:
    fleet = Fleet(plan_of("a", "b"))
    fleet.tick(DEADLINE_S - 1)
    assert fleet.phase == "staging"
    fleet.tick(1)
    assert (fleet.phase, fleet.has()) == ("reverting", {"a": "b"})
    assert "not healthy 60 s" in fleet.rollout.head.reason


def test_a_node_that_goes_after_it_was_told_is_silent() -> None:
    fleet = Fleet(plan_of("ab"))
    fleet.seen("a", online=False)
    fleet.active("b")
    fleet.tick(DEADLINE_S)
    assert fleet.phase == "reverting"


def test_time_in_which_nobody_could_be_heard_is_nobodys_silence() -> None:
    fleet = Fleet(plan_of("a"))
    fleet.now_s += 1e6
    fleet.tick(1)
    assert fleet.phase == "staging"


def test_a_node_that_never_confirms_its_way_back_does_not_hold_up_the_end() -> None:
    fleet = Fleet(plan_of("ab"))
    fleet.hear("a", "failed")
    fleet.active("a")
    fleet.tick(DEADLINE_S)
    assert fleet.phase == "rolled-back"
    assert fleet.rollout.head.reason.endswith("not yet confirmed by b")
    fleet.active("b")
    assert fleet.node("b") == "reverted"


def test_nodes_that_are_off_neither_block_a_stage_nor_count() -> None:
    fleet = Fleet(plan_of("ab", "cd"), off="acd")
    assert fleet.has() == {"b": "a"}
    fleet.active("b")
    assert fleet.phase == "completed"


def test_they_are_told_as_soon_as_they_are_back() -> None:
    fleet = Fleet(plan_of("ab", "cd"), off="ad")
    fleet.seen("a", online=True)
    assert fleet.has() == {"a": "a", "b": "a"}
    fleet.active("a", "b", "c")
    assert fleet.phase == "completed"
    fleet.seen("d", online=True)
    assert fleet.has()["d"] == "a"
    fleet.active("d")
    assert fleet.node("d") == "healthy"


def test_a_node_that_is_back_after_the_end_and_fails_goes_back_alone() -> None:
    fleet = Fleet(plan_of("ab"), off="b")
    fleet.active("a")
    fleet.seen("b", online=True)
    fleet.hear("b", "failed")
    assert (fleet.phase, fleet.has()) == ("completed", {"a": "a", "b": "b"})
    fleet.active("b")
    assert fleet.node("b") == "reverted"


def test_a_stage_with_nobody_there_is_silence_while_nobody_is_healthy() -> None:
    fleet = Fleet(plan_of("a", "b"), off="a")
    fleet.tick(DEADLINE_S)
    assert fleet.phase == "rolled-back"
    assert "silence" in fleet.rollout.head.reason
    assert not fleet.orders


def test_a_later_rollout_takes_a_node_over() -> None:
    fleet = Fleet(plan_of("ab"), off="b")
    fleet.active("a")
    for node in "ab":
        fleet.feed(Taken(node))
    fleet.seen("b", online=True)
    fleet.feed(RollBack("too late", 0.0))
    assert (fleet.phase, fleet.has()) == ("rolled-back", {"a": "a"})


def test_the_gate_holds_until_it_accepts() -> None:
    fleet = Fleet(plan_of("a", "b", gate=0))
    fleet.active("a")
    assert (fleet.phase, fleet.rollout.holds) == ("judging", ("gate",))
    fleet.judged("continue")
    assert fleet.phase == "judging"
    fleet.judged("accept")
    assert fleet.has() == {"a": "a", "b": "a"}
    fleet.active("b")
    assert fleet.phase == "completed"


def test_the_gate_may_accept_before_the_stage_is_whole() -> None:
    fleet = Fleet(plan_of("ab", "c", gate=0))
    fleet.active("a")
    fleet.judged("accept")
    fleet.active("b")
    assert fleet.has()["c"] == "a"


def test_what_the_gate_accepted_it_may_still_reject() -> None:
    fleet = Fleet(plan_of("a", "b", gate=0))
    fleet.active("a")
    fleet.judged("accept")
    fleet.judged("reject", "failed 30 of 100")
    assert (fleet.phase, fleet.rollout.head.reason) == ("reverting", "gate: failed 30 of 100")
    assert fleet.has() == {"a": "b", "b": "b"}


def test_a_gate_that_decides_nothing_in_time_is_silence() -> None:
    fleet = Fleet(plan_of("a", "b", gate=0))
    fleet.active("a")
    fleet.tick(SILENCE_S)
    assert fleet.phase == "reverting"
    assert "decided nothing after 120 s" in fleet.rollout.head.reason


def test_each_stage_is_watched_for_as_long_as_it_bakes() -> None:
    fleet = Fleet(plan_of("a", "b", policy=policy(bake_s=30.0)))
    fleet.active("a")
    fleet.tick(29.0)
    assert (fleet.phase, fleet.rollout.holds) == ("judging", ("bake",))
    fleet.tick(1.0)
    assert fleet.has() == {"a": "a", "b": "a"}


def test_somebody_must_approve_where_the_plan_says_so() -> None:
    fleet = Fleet(plan_of("a", "b", "c", policy=policy(approve_after=(1, 2))))
    fleet.active("a")
    fleet.tick(1e6)
    assert (fleet.phase, fleet.rollout.holds) == ("judging", ("approval",))
    fleet.feed(Promote(0.0))
    fleet.active("b")
    assert fleet.rollout.holds == ("approval",)
    fleet.feed(Promote(0.0))
    fleet.active("c")
    assert fleet.phase == "completed"


def test_approval_opens_no_gate() -> None:
    fleet = Fleet(plan_of("a", "b", gate=0))
    fleet.active("a")
    fleet.feed(Promote(0.0))
    assert fleet.rollout.holds == ("gate",)


def test_while_it_is_paused_nobody_new_is_told_and_no_gate_is_late() -> None:
    fleet = Fleet(plan_of("ab", "c", policy=policy(max_parallel=1), gate=0))
    fleet.feed(Pause(0.0))
    fleet.active("a")
    assert fleet.has() == {"a": "a"}
    fleet.feed(Resume(0.0))
    fleet.active("b")
    fleet.feed(Pause(0.0))
    fleet.tick(2 * SILENCE_S)
    assert fleet.phase == "judging"
    fleet.feed(Resume(0.0))
    fleet.tick(SILENCE_S)
    assert fleet.phase == "reverting"


def test_a_node_that_fails_while_it_is_paused_stops_it() -> None:
    fleet = Fleet(plan_of("ab"))
    fleet.feed(Pause(0.0))
    fleet.hear("a", "failed")
    assert (fleet.phase, fleet.rollout.head.paused) == ("reverting", False)


def test_as_many_as_may_fail_go_back_alone() -> None:
    fleet = Fleet(plan_of("abc", "d", policy=policy(max_failed=1)))
    fleet.hear("a", "failed", error="out of memory")
    assert (fleet.phase, fleet.has()) == ("staging", {"a": "b", "b": "a", "c": "a"})
    fleet.active("b", "c")
    assert fleet.has()["d"] == "a"
    fleet.hear("d", "failed")
    assert (fleet.phase, fleet.has()) == ("reverting", FOUR)


def test_a_failed_node_is_told_again_when_somebody_asks() -> None:
    fleet = Fleet(plan_of("ab", policy=policy(max_failed=1)))
    fleet.hear("a", "failed")
    fleet.feed(Retry(0.0))
    assert (fleet.has(), fleet.rollout.failures) == ({"a": "a", "b": "a"}, 0)
    fleet.active("a", "b")
    assert fleet.phase == "completed"


def test_without_auto_revert_it_halts_until_somebody_decides() -> None:
    fleet = Fleet(plan_of("ab", "c", policy=policy(auto_revert=False)))
    fleet.hear("a", "failed")
    fleet.active("b")
    fleet.tick(1e6)
    assert (fleet.phase, fleet.has()) == ("halted", {"a": "a", "b": "a"})
    fleet.feed(Retry(0.0))
    fleet.active("a", "c")
    assert fleet.phase == "completed"


def test_a_halted_one_can_be_rolled_back() -> None:
    fleet = Fleet(plan_of("ab", gate=0, policy=policy(auto_revert=False)))
    fleet.active("a", "b")
    fleet.judged("reject", "slow")
    assert fleet.phase == "halted"
    fleet.feed(RollBack("enough", 0.0))
    assert (fleet.phase, fleet.has()) == ("reverting", {"a": "b", "b": "b"})


def test_one_that_has_ended_can_be_rolled_back() -> None:
    fleet = Fleet(plan_of("ab"))
    fleet.active("a", "b")
    fleet.feed(RollBack("customers complain", 5.0))
    assert (fleet.phase, fleet.has()) == ("reverting", {"a": "b", "b": "b"})
    fleet.active("a", "b")
    assert fleet.phase == "rolled-back"


def test_a_first_version_is_taken_away_again() -> None:
    fleet = Fleet(plan_of("a", previous=""))
    fleet.hear("a", "failed")
    assert fleet.has() == {}
    fleet.active("a")
    assert fleet.phase == "rolled-back"


def test_what_was_said_of_an_older_document_means_nothing() -> None:
    fleet = Fleet(plan_of("a"))
    fleet.hear("a", "active", sequence=0)
    assert fleet.phase == "staging"


def test_nodes_are_told_in_their_windows() -> None:
    noon = 12 * 3600.0
    night = Window("02:00", "04:00")
    fleet = Fleet(plan_of("ab", windows={"b": night}))
    fleet.active("a")
    fleet.now_s = noon
    fleet.tick(1.0)
    assert (fleet.phase, fleet.has()) == ("staging", {"a": "a"})
    fleet.now_s = 86_400.0 + 2.5 * 3600
    fleet.tick(1.0)
    assert fleet.has() == {"a": "a", "b": "a"}


def test_every_node_was_told_old_or_new_alone() -> None:
    fleet = Fleet(plan_of("ab"))
    fleet.hear("a", "failed")
    assert {order.digest for order in fleet.orders if order.node == "a"} == {fleet.rollout.plan.digest, OLD}
