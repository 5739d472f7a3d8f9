"""The rollout's table, under generated histories: whatever comes, in whatever order, how often ever."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.errors import FoothillError
from contracts.messages import ModelPhase, ModelReport
from fleet import gates
from fleet.rollout import (
    FINAL,
    Abort,
    Assign,
    Assigned,
    Audited,
    Event,
    Gate,
    Heard,
    Plan,
    Rollout,
    Tick,
    advance,
    begin,
    plan_stages,
)

NEW, OLD, OTHER = ("sha256:" + letter * 64 for letter in "abc")
TERMS = gates.terms_for(gates.Tally(100, 2), None, gates.GateSettings())
DEADLINE_S, SILENCE_S = 60.0, 120.0


def plan_of(stages: tuple[tuple[str, ...], ...], previous: str = OLD, *, gated: bool = True) -> Plan:
    names = [name for stage in stages for name in stage]
    gate = Gate(0, TERMS) if gated and previous else None
    return Plan("r", "b@2", "m", NEW, stages, dict.fromkeys(names, previous), DEADLINE_S, SILENCE_S, gate)


class Fleet:
    """Plays the controller: gives commands their sequences, and remembers what each node was last told."""

    def __init__(self, plan: Plan, at_s: float = 0.0) -> None:
        self.now_s = at_s
        self.sequence = 0
        self.told: dict[str, tuple[int, str]] = {}
        self.state, commands = begin(plan, at_s)
        self._obey(commands)

    def feed(self, event: Event) -> None:
        self.state, commands = advance(self.state, event)
        self._obey(commands)

    def phase(self) -> str:
        return self.state.phase

    def hear(self, node: str, report: ModelReport | None, sequence: int | None = None) -> None:
        self.feed(Heard(node, self.told[node][0] if sequence is None else sequence, report, self.now_s))

    def active(self, node: str) -> None:
        digest = self.told[node][1]
        self.hear(node, ModelReport(digest, "active", serving=digest) if digest else None)

    def audit(self, node: str, *, agree: bool) -> None:
        self.feed(Audited(node, agree, self.now_s))

    def tick(self, seconds: float) -> None:
        self.now_s += seconds
        self.feed(Tick(seconds, self.now_s))

    def _obey(self, commands: tuple[Assign, ...]) -> None:
        for command in commands:
            self.sequence += 1
            self.told[command.node] = (self.sequence, command.digest)
            self.state, more = advance(self.state, Assigned(command.node, self.sequence))
            assert not more


def accepted(fleet: Fleet, node: str) -> None:
    while fleet.phase() == "judging":
        fleet.audit(node, agree=True)


def test_a_good_version_goes_stage_by_stage_to_all() -> None:
    fleet = Fleet(plan_of((("a",), ("b", "c"))))
    assert set(fleet.told) == {"a"}
    fleet.active("a")
    assert fleet.phase() == "judging"
    accepted(fleet, "a")
    assert set(fleet.told) == {"a", "b", "c"}
    fleet.active("b")
    fleet.now_s = 9.0
    fleet.active("c")
    assert fleet.phase() == "completed"
    assert fleet.state.ended_at_s == 9.0
    assert fleet.state.evidence is not None
    assert fleet.state.evidence.decision == "accept"


def test_a_first_version_needs_no_gate() -> None:
    fleet = Fleet(plan_of((("a",), ("b",)), previous=""))
    fleet.active("a")
    fleet.active("b")
    assert fleet.phase() == "completed"
    assert fleet.state.evidence is None


def test_a_bad_version_stops_at_the_canary_and_comes_back_under_a_higher_sequence() -> None:
    fleet = Fleet(plan_of((("a",), ("b", "c"))))
    first = fleet.told["a"][0]
    fleet.active("a")
    while fleet.phase() == "judging":
        fleet.audit("a", agree=False)
    assert fleet.phase() == "reverting"
    assert fleet.told == {"a": (first + 1, OLD)}
    assert "gate" in fleet.state.reason
    fleet.active("a")
    assert fleet.phase() == "rolled-back"
    assert fleet.state.stage == 0
    assert fleet.state.nodes["a"].phase == "reverted"


def test_a_version_that_turns_out_bad_in_a_later_stage_is_stopped_there() -> None:
    fleet = Fleet(plan_of((("a",), ("b", "c"))))
    fleet.active("a")
    accepted(fleet, "a")
    fleet.active("b")
    fleet.audit("c", agree=False)
    assert fleet.state.tally.disagreements == 0, "c has not the new version yet"
    fleet.audit("b", agree=False)
    assert fleet.state.evidence is not None
    assert fleet.state.evidence.decision == "accept"
    while fleet.phase() == "staging":
        fleet.audit("b", agree=False)
    assert fleet.phase() == "reverting"
    assert {node: digest for node, (_, digest) in fleet.told.items()} == dict.fromkeys("abc", OLD)
    assert "gate" in fleet.state.reason


def test_good_audits_go_on_counting_and_change_nothing() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    fleet.active("a")
    accepted(fleet, "a")
    counted = fleet.state.tally.n
    fleet.audit("a", agree=True)
    assert (fleet.phase(), fleet.state.tally.n) == ("staging", counted + 1)
    fleet.active("b")
    assert fleet.phase() == "completed"


def test_a_failed_golden_test_stops_the_rollout_and_names_its_cause() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    fleet.hear("a", ModelReport(NEW, "failed", serving=OLD, error="golden: logits off by 3"))
    assert fleet.phase() == "reverting"
    assert "golden: logits off by 3" in fleet.state.reason


def test_a_canary_that_crashes_while_it_is_judged_stops_the_rollout() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    fleet.active("a")
    fleet.hear("a", ModelReport(NEW, "reverted", serving=OLD))
    assert fleet.phase() == "reverting"


def test_a_version_that_an_operator_took_off_a_node_stops_a_rollout_and_is_good_enough_to_go_back_to() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    fleet.hear("a", ModelReport(NEW, "unloaded"))
    assert fleet.phase() == "reverting"
    assert fleet.state.reason == "a failed: an operator has unloaded it on the node"
    fleet.hear("a", ModelReport(OLD, "unloaded"))
    assert fleet.phase() == "rolled-back"


def test_a_silent_node_is_a_failed_node_after_the_deadline() -> None:
    fleet = Fleet(plan_of((("a", "b"),)))
    fleet.active("a")
    fleet.tick(DEADLINE_S - 1)
    assert fleet.phase() == "staging"
    fleet.tick(1)
    assert fleet.phase() == "reverting"
    assert "b did not become active" in fleet.state.reason
    assert {digest for _, digest in fleet.told.values()} == {OLD}


def test_time_in_which_nobody_listened_is_nobodys_silence() -> None:
    fleet = Fleet(plan_of((("a",),)))
    fleet.now_s += 1e6
    fleet.feed(Tick(0.25, fleet.now_s))
    assert fleet.phase() == "staging"


def test_a_gate_that_hears_nothing_decides_against() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    fleet.active("a")
    fleet.tick(SILENCE_S)
    assert fleet.phase() == "reverting"
    assert "silence" in fleet.state.reason


def test_a_node_that_never_comes_back_does_not_hold_the_end_up_and_may_come_later() -> None:
    fleet = Fleet(plan_of((("a", "b"),)))
    fleet.feed(Abort("enough", 0.0))
    fleet.active("a")
    fleet.tick(DEADLINE_S)
    assert fleet.phase() == "rolled-back"
    assert "not yet confirmed by b" in fleet.state.reason
    fleet.active("b")
    assert fleet.phase() == "rolled-back"
    assert fleet.state.nodes["b"].phase == "reverted"


def test_what_a_node_said_of_an_older_document_counts_for_nothing() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    stale = fleet.told["a"][0] - 1
    fleet.hear("a", ModelReport(NEW, "failed"), sequence=stale)
    fleet.hear("a", ModelReport(NEW, "active"), sequence=stale)
    assert fleet.phase() == "staging"


def test_audits_before_activation_and_of_other_nodes_count_for_nothing() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    for node in ("a", "b", "stranger"):
        fleet.audit(node, agree=False)
    assert fleet.state.tally.n == 0


def test_early_evidence_counts_while_the_rest_of_the_canary_comes_up() -> None:
    fleet = Fleet(plan_of((("a", "b"), ("c",))))
    fleet.active("a")
    for _ in range(200):
        fleet.audit("a", agree=True)
    decided = fleet.state.tally.n
    assert decided < 200  # the first decision stands: later audits are not counted
    fleet.active("b")
    assert set(fleet.told) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("total", "stages", "sizes"),
    [
        (3, (1, "100%"), [1, 2]),
        (3, (), [3]),
        (10, ("10%", "50%"), [1, 4, 5]),
        (10, (1, 1, 5), [1, 4, 5]),
        (2, (1, 50), [1, 1]),
        (1, (1, "100%"), [1]),
        (7, ("1%",), [1, 6]),
    ],
)
def test_stages_are_cut_as_asked(total: int, stages: tuple[int | str, ...], sizes: list[int]) -> None:
    nodes = [f"n{i}" for i in range(total)]
    cut = plan_stages(nodes, stages)
    assert [len(stage) for stage in cut] == sizes
    assert [name for stage in cut for name in stage] == nodes


@pytest.mark.parametrize("stage", [0, -1, "0%", "101%", "x%", "10", "5.5%", "9" * 5000 + "%"])
def test_a_stage_out_of_form_is_refused(stage: int | str) -> None:
    with pytest.raises(FoothillError, match="neither"):
        plan_stages(["a"], [stage])


def test_a_state_survives_its_storage() -> None:
    fleet = Fleet(plan_of((("a",), ("b",))))
    fleet.active("a")
    fleet.audit("a", agree=True)
    stored = msgspec.msgpack.encode(fleet.state)
    assert msgspec.msgpack.decode(stored, type=Rollout) == fleet.state


class Histories(RuleBasedStateMachine):
    """Nodes that lie, repeat, delay and fail; a gate that sees anything; an operator who may give up."""

    fleet: Fleet
    plan: Plan

    @initialize(
        sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        bare=st.sets(st.integers(0, 8)),
        gated=st.booleans(),
    )
    def start(self, sizes: list[int], bare: set[int], gated: bool) -> None:
        names = [f"n{i}" for i in range(sum(sizes))]
        cut = iter(names)
        stages = tuple(tuple(next(cut) for _ in range(size)) for size in sizes)
        previous = {name: "" if i in bare else OLD for i, name in enumerate(names)}
        gate_stage = next((i for i, stage in enumerate(stages) if any(previous[name] for name in stage)), None)
        gate = Gate(gate_stage, TERMS) if gated and gate_stage is not None else None
        self.plan = Plan("r", "b@2", "m", NEW, stages, previous, DEADLINE_S, SILENCE_S, gate)
        self.fleet = Fleet(self.plan)
        self.past: list[Event] = []

    def feed(self, event: Event) -> None:
        self.past.append(event)
        self.fleet.feed(event)

    @rule(data=st.data())
    def somebody_reports(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.plan.previous)))
        sequence = data.draw(st.integers(0, self.fleet.sequence + 1))
        digest = data.draw(st.sampled_from([NEW, OLD, OTHER]))
        phase: ModelPhase = data.draw(st.sampled_from(get_args(ModelPhase)))
        report = data.draw(st.sampled_from([None, ModelReport(digest, phase), ModelReport(digest, phase, OLD)]))
        self.feed(Heard(node, sequence, report, self.fleet.now_s))

    @rule(data=st.data())
    def a_node_obeys(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.fleet.told)))
        sequence, digest = self.fleet.told[node]
        self.feed(Heard(node, sequence, ModelReport(digest, "active", digest) if digest else None, self.fleet.now_s))

    @rule(data=st.data(), agree=st.booleans(), times=st.integers(1, 40))
    def audits_come(self, data: st.DataObject, agree: bool, times: int) -> None:
        node = data.draw(st.sampled_from([*sorted(self.plan.previous), "stranger"]))
        for _ in range(times):
            self.feed(Audited(node, agree, self.fleet.now_s))

    @rule(seconds=st.floats(0, 70))
    def time_passes(self, seconds: float) -> None:
        self.fleet.now_s += seconds
        self.feed(Tick(seconds, self.fleet.now_s))

    @rule()
    def the_operator_gives_up(self) -> None:
        self.feed(Abort("enough", self.fleet.now_s))

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def an_old_event_comes_again(self, data: st.DataObject) -> None:
        self.fleet.feed(data.draw(st.sampled_from(self.past)))

    @invariant()
    def nobody_is_exposed_before_his_stage(self) -> None:
        if hasattr(self, "fleet"):
            reached = {name for stage in self.plan.stages[: self.fleet.state.stage + 1] for name in stage}
            assert set(self.fleet.told) == set(self.fleet.state.exposed) <= reached

    @invariant()
    def after_a_stop_every_exposed_node_is_told_its_previous_version_last(self) -> None:
        if hasattr(self, "fleet") and self.fleet.state.phase in ("reverting", "rolled-back"):
            for name, (_, digest) in self.fleet.told.items():
                assert digest == self.plan.previous[name]
            assert self.fleet.state.reason

    @invariant()
    def who_completes_has_every_node_active_on_the_new_version(self) -> None:
        if hasattr(self, "fleet") and self.fleet.state.phase == "completed":
            assert all(node.phase == "active" for node in self.fleet.state.nodes.values())
            assert {digest for _, digest in self.fleet.told.values()} == {NEW}
            gate = self.fleet.state.evidence
            assert gate is None or gate.decision == "accept"

    def teardown(self) -> None:
        """Every state has a way out: with nothing but time, all end."""
        if not hasattr(self, "fleet"):
            return
        for _ in range(3 + 2 * len(self.plan.stages)):
            self.fleet.tick(max(DEADLINE_S, SILENCE_S))
        assert self.fleet.state.phase in FINAL
        ended = self.fleet.state
        self.fleet.feed(Abort("late", self.fleet.now_s))
        self.fleet.tick(1e6)
        assert self.fleet.state == ended


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase


@given(st.permutations(["a", "b", "c"]), st.integers(1, 3))
def test_the_order_of_reports_and_their_repetition_do_not_matter(order: list[str], times: int) -> None:
    fleet = Fleet(plan_of((("a", "b", "c"),), gated=False))
    for _ in range(times):
        for node in order:
            fleet.active(node)
    assert fleet.phase() == "completed"
