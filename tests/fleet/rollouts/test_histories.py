"""Rollouts under generated histories: whatever comes, in whatever order, how often ever."""

from __future__ import annotations

from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.messages import ModelPhase
from contracts.risk.sequential import Decision
from fleet.rollouts.advance import TABLE
from fleet.rollouts.events import Event, Pause, Promote, Resume, Retry, RollBack, Tick
from fleet.rollouts.nodes import EXPOSED, NODES, NodePhase
from fleet.rollouts.plan import Policy
from fleet.rollouts.rollout import FINAL, Phase
from tests.fleet.rollouts.fleet import DEADLINE_S, NEW, OLD, SILENCE_S, Fleet, plan_of

NODE_NAMES = "abcdefgh"
nodes = st.sampled_from(NODE_NAMES)
policies = st.builds(
    Policy,
    max_parallel=st.integers(0, 4),
    min_healthy_s=st.sampled_from([0.0, 20.0]),
    healthy_deadline_s=st.just(DEADLINE_S),
    max_failed=st.integers(0, 2),
    auto_revert=st.booleans(),
    bake_s=st.sampled_from([0.0, 15.0]),
    approve_after=st.sampled_from([(), (1,), (1, 2, 3)]),
)


class Histories(RuleBasedStateMachine):
    fleet: Fleet

    @initialize(
        policy=policies,
        cuts=st.sampled_from([("abcdefgh",), ("a", "bcdefgh"), ("ab", "cd", "efgh")]),
        gate=st.sampled_from([None, 0]),
        off=st.sets(nodes),
        previous=st.sampled_from([OLD, ""]),
    )
    def begins(self, policy: Policy, cuts: tuple[str, ...], gate: int | None, off: set[str], previous: str) -> None:
        self.fleet = Fleet(plan_of(*cuts, policy=policy, gate=gate, previous=previous), off)

    @rule(node=nodes, phase=st.sampled_from(get_args(ModelPhase)), behind=st.integers(0, 3))
    def a_node_reports(self, node: str, phase: ModelPhase, behind: int) -> None:
        """Of its last document, or of one of a few before it."""
        if node in self.fleet.told:
            self.fleet.hear(node, phase, sequence=max(0, self.fleet.told[node][0] - behind))

    @rule(node=nodes)
    def a_node_serves_what_it_was_told(self, node: str) -> None:
        if node in self.fleet.told:
            self.fleet.active(node)

    @rule(node=nodes, online=st.booleans())
    def a_node_comes_or_goes(self, node: str, online: bool) -> None:
        self.fleet.seen(node, online=online)

    @rule(decision=st.sampled_from(get_args(Decision)))
    def the_gate_says(self, decision: Decision) -> None:
        self.fleet.judged(decision, "so")

    @rule(seconds=st.sampled_from([0.25, 10.0, DEADLINE_S, SILENCE_S]))
    def time_goes_by(self, seconds: float) -> None:
        self.fleet.tick(seconds)

    @rule(event=st.sampled_from([Pause(0.0), Resume(0.0), Promote(0.0), Retry(0.0), RollBack("enough", 0.0)]))
    def an_operator_says(self, event: Event) -> None:
        self.fleet.feed(event)

    @invariant()
    def no_more_are_in_work_than_may_be(self) -> None:
        most = self.fleet.rollout.plan.policy.max_parallel
        assert not most or self.fleet.rollout.in_work <= most

    @invariant()
    def each_node_is_told_what_its_phase_says(self) -> None:
        plan = self.fleet.rollout.plan
        for name, node in self.fleet.rollout.nodes.items():
            told = self.fleet.told.get(name, (0, ""))[1]
            if node.phase in EXPOSED:
                assert told == NEW
            if node.phase in ("reverting", "reverted"):
                assert told == plan.previous[name]
            if node.phase == "planned":
                assert name not in self.fleet.told

    @invariant()
    def a_roll_back_leaves_nobody_exposed(self) -> None:
        if self.fleet.phase in ("reverting", "rolled-back"):
            assert not self.fleet.rollout.count(*EXPOSED)

    @invariant()
    def no_node_of_a_stage_that_has_not_begun_is_told(self) -> None:
        rollout = self.fleet.rollout
        later = {name for stage in rollout.plan.stages[rollout.head.stage + 1 :] for name in stage}
        assert not later & self.fleet.told.keys()

    @invariant()
    def the_index_is_right(self) -> None:
        rollout = self.fleet.rollout
        for phase in get_args(NodePhase):
            assert {*rollout.names(phase)} == {name for name, node in rollout.nodes.items() if node.phase == phase}
        assert rollout.failed == sorted(name for name, node in rollout.nodes.items() if node.error)

    def teardown(self) -> None:
        """Every state has a way out, which takes nothing but nodes that obey and an operator who agrees."""
        if not hasattr(self, "fleet"):
            return
        fleet = self.fleet
        for _ in range(200):
            if fleet.phase in FINAL:
                break
            for name in NODE_NAMES:
                fleet.seen(name, online=True)
                if name in fleet.told:
                    fleet.active(name)
            fleet.judged("accept")
            fleet.feed(Resume(0.0))
            fleet.feed(Promote(0.0))
            if fleet.phase == "halted":
                fleet.feed(RollBack("no more", 0.0))
            fleet.tick(5.0)
        assert fleet.phase in FINAL
        if fleet.phase == "completed":
            assert fleet.rollout.count("healthy")


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_histories = Histories.TestCase


def test_every_phase_of_a_rollout_that_has_not_ended_has_a_way_out() -> None:
    for phase in get_args(Phase):
        if phase not in FINAL:
            assert (phase, Tick) in TABLE
            assert phase == "reverting" or (phase, RollBack) in TABLE


def test_every_phase_of_a_node_in_work_has_a_way_out() -> None:
    for phase in ("assigned", "settling", "failed", "reverting"):
        assert [sign for (found, sign) in NODES if found == phase]
