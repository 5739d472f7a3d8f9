"""Rollouts played again from the log come to where they came, and forged logs do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.messages import ModelPhase, ModelReport
from contracts.quality import Counts
from fleet.auditing.chain import START, Entry, Mark, link, read
from fleet.auditing.entries import Began, Body, Happened, Kept, Opened, Withdrawn
from fleet.auditing.replay import Holding, digest_of, digest_of_assignments
from fleet.auditing.verification import Verdict, verify
from fleet.courses import Course
from fleet.judging.aims import GateSettings, Margins, Tally, aims_for
from fleet.judging.evident import Audited, Counted, Evident
from fleet.judging.ruling import Ruling
from fleet.rollouts.advance import Orders
from fleet.rollouts.events import Assigned, Event, Heard, Pause, Promote, Resume, Retry, RollBack, Seen, Tick
from fleet.rollouts.plan import Policy
from fleet.rollouts.windows import Window
from tests.fleet.rollouts.fleet import DEADLINE_S, NEW, OLD, SILENCE_S, plan_of

NAMES = "abcdefgh"
SERVED = Counts(runs=1000, failed=10, judged=990, doubtful=100, looks=300, latency=(0, 0, 990))
AIMS = aims_for(SERVED, Tally(200, 4), GateSettings(margins=Margins(disagreeing=0.1)))
GRAIN_S = 1.0 / 1024.0


class LoggedFleet:
    """One rollout as the controller drives it: events in groups, then the documents, then an entry. `stored`: the
    digest of what was written last, which time that goes by does not change."""

    def __init__(self, *stages: str, policy: Policy, off: str = "", windows: dict[str, Window] | None = None) -> None:
        self.plan = plan_of(*stages, policy=policy, gate=0, windows=windows)
        self.now_s, self.sequence = 1e9, 0
        self.told: dict[str, tuple[int, str]] = {}
        self.bodies: list[Body] = [Opened({name: {"m": OLD} for name in NAMES}, ())]
        online = set(NAMES) - set(off)
        self.course, orders = Course.begin(self.plan, Ruling(AIMS), online, self.now_s)
        self._commit(orders)

    def feed(self, *events: Event | Evident) -> None:
        orders = [order for event in events for order in self.course.feed(event)]
        if self.course.is_changed:
            self._commit(orders)

    def tick(self, *seconds: float) -> None:
        for each in seconds:
            self.now_s += each
            self.feed(Tick(round(each / GRAIN_S) * GRAIN_S, self.now_s))

    def heard(self, name: str, phase: ModelPhase, digest: str = "") -> Heard:
        sequence, told = self.told.get(name, (0, NEW))
        return Heard(name, sequence, ModelReport(digest or told, phase, serving=digest or told), self.now_s)

    def holding(self) -> Holding:
        has = dict.fromkeys(NAMES, OLD) | {name: digest for name, (_, digest) in self.told.items()}
        assigned = {name: {"m": digest} for name, digest in has.items() if digest}
        return Holding({self.course.id: self.stored}, digest_of_assignments(assigned))

    def verdict(self, bodies: list[Body] | None = None, noted: Mark = START) -> Verdict:
        return verify(chain(self.bodies if bodies is None else bodies), noted, self.holding())

    def _commit(self, orders: Orders) -> None:
        for order in orders:
            self.sequence += 1
            self.told[order.node] = self.sequence, order.digest
            self.course.feed(Assigned(order.node, self.sequence))
        if self.course.beginning is not None:
            self.bodies.append(Began(self.course.beginning))
        if self.course.journal:
            self.bodies.append(Happened(self.course.id, tuple(self.course.journal)))
        self.course.stored()
        self.stored = digest_of(self.course)


def chain(bodies: list[Body]) -> list[Entry]:
    """Read again from its bytes."""
    entries, last = [], START
    for at, body in enumerate(bodies):
        entries.append(link(last, float(at), body))
        last = entries[-1].mark
    return [msgspec.json.decode(msgspec.json.encode(entry), type=Entry) for entry in entries]


nodes = st.sampled_from(NAMES)
policies = st.builds(
    Policy,
    max_parallel=st.integers(0, 4),
    min_healthy_s=st.sampled_from([0.0, 20.0]),
    healthy_deadline_s=st.just(DEADLINE_S),
    max_failed=st.integers(0, 2),
    auto_revert=st.booleans(),
    bake_s=st.sampled_from([0.0, 15.0]),
    approve_after=st.sampled_from([(), (1,)]),
)
WINDOWS = {"c": Window("02:00", "04:00", "Europe/Berlin"), "f": Window("00:00", "12:00")}


class Logged(RuleBasedStateMachine):
    fleet: LoggedFleet

    @initialize(
        policy=policies,
        cuts=st.sampled_from([("abcdefgh",), ("a", "bcdefgh"), ("ab", "cd", "efgh")]),
        off=st.sampled_from(["", "a", "bcd", NAMES]),
        windows=st.sampled_from([{}, WINDOWS]),
    )
    def begins(self, policy: Policy, cuts: tuple[str, ...], off: str, windows: dict[str, Window]) -> None:
        self.fleet = LoggedFleet(*cuts, policy=policy, off=off, windows=windows)

    @rule(heard=st.lists(st.tuples(nodes, st.sampled_from(get_args(ModelPhase))), min_size=1, max_size=8))
    def nodes_report(self, heard: list[tuple[str, ModelPhase]]) -> None:
        self.fleet.feed(*(self.fleet.heard(name, phase) for name, phase in heard))

    @rule()
    def all_serve_what_they_were_told(self) -> None:
        self.fleet.feed(*(self.fleet.heard(name, "active") for name in self.fleet.told))

    @rule(node=nodes, online=st.booleans())
    def a_node_comes_or_goes(self, node: str, online: bool) -> None:
        self.fleet.feed(Seen(node, online, self.fleet.now_s))

    @rule(seconds=st.lists(st.floats(0.01, 1.0), max_size=8))
    def little_time_goes_by(self, seconds: list[float]) -> None:
        self.fleet.tick(*seconds)

    @rule(seconds=st.sampled_from([10.0, DEADLINE_S, SILENCE_S, 7 * 3600.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.fleet.tick(seconds)

    @rule(nodes=st.lists(nodes, min_size=1, max_size=30), agree=st.booleans())
    def audits_come(self, nodes: list[str], agree: bool) -> None:
        self.fleet.feed(*(Audited(name, agree, self.fleet.now_s) for name in nodes))

    @rule(failed=st.sampled_from([0, 10, 300]), times=st.integers(1, 9))
    def counts_are_booked(self, failed: int, times: int) -> None:
        served = msgspec.structs.replace(SERVED, failed=failed, latency=(0, 0, SERVED.runs - failed))
        self.fleet.feed(*[Counted(3, served, self.fleet.now_s)] * times)

    @rule(event=st.sampled_from([Pause, Resume, Promote, Retry]))
    def an_operator_says(self, event: Callable[[float], Event]) -> None:
        self.fleet.feed(event(self.fleet.now_s))

    @rule()
    def an_operator_sends_all_back(self) -> None:
        self.fleet.feed(RollBack("enough", self.fleet.now_s))

    @invariant()
    def the_log_proves_it(self) -> None:
        if hasattr(self, "fleet"):
            assert not self.fleet.verdict().faults


TestLogged = Logged.TestCase
TestLogged.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def stopped() -> LoggedFleet:
    """Healthy at the canary, and then stopped by its gate."""
    fleet = LoggedFleet("ab", "cd", policy=Policy(healthy_deadline_s=DEADLINE_S))
    fleet.feed(fleet.heard("a", "active"), fleet.heard("b", "active"))
    fleet.tick(0.25, 0.25, 0.25)
    for _ in range(60):
        fleet.now_s += 1.0
        fleet.feed(Audited("a", False, fleet.now_s))
    fleet.feed(fleet.heard("a", "active"), fleet.heard("b", "active"))
    assert fleet.course.rollout.head.phase == "rolled-back"
    return fleet


def test_every_decision_is_derived_again_with_its_reason(stopped: LoggedFleet) -> None:
    verdict = stopped.verdict()
    assert [step.phase for step in verdict.steps] == ["staging", "judging", "reverting", "rolled-back"]
    assert verdict.steps[2].reason.startswith("gate: disagreeing")
    assert (verdict.faults, verdict.mark.seq) == ((), len(stopped.bodies))


def edited(fleet: LoggedFleet, kind: type, edit: Callable[[Event | Evident], list[Event | Evident]]) -> list[Body]:
    """The first event of its kind is replaced, in a chain that is written anew."""
    bodies, done = [], False
    for body in fleet.bodies:
        if isinstance(body, Happened) and not done and any(isinstance(event, kind) for event in body.events):
            at = next(at for at, event in enumerate(body.events) if isinstance(event, kind))
            body = Happened(body.rollout, (*body.events[:at], *edit(body.events[at]), *body.events[at + 1 :]))
            done = True
        bodies.append(body)
    assert done
    return bodies


@pytest.mark.parametrize(
    ("kind", "edit", "told"),
    [
        (Audited, lambda event: [msgspec.structs.replace(event, agree=True)], "is not what its entries lead to"),
        (Audited, lambda event: [event, event], "is not what its entries lead to"),
        (Tick, lambda _: [], "is not what its entries lead to"),
        (Assigned, lambda _: [], "must tell a"),
        (Assigned, lambda event: [msgspec.structs.replace(event, node="c")], "c was told"),
        (Assigned, lambda event: [event, msgspec.structs.replace(event, node="d")], "d was told"),
        (Assigned, lambda event: [msgspec.structs.replace(event, sequence=0)], "not above the one before"),
    ],
)
def test_a_log_written_anew_with_other_events_does_not_lead_there(
    stopped: LoggedFleet, kind: type, edit: Callable[[Event | Evident], list[Event | Evident]], told: str
) -> None:
    assert any(told in fault for fault in stopped.verdict(edited(stopped, kind, edit)).faults)


def test_a_rollout_that_was_taken_out_or_put_in_is_missed(stopped: LoggedFleet) -> None:
    assert "rollout r is in no entry" in stopped.verdict(stopped.bodies[:1]).faults
    gone = verify(chain(stopped.bodies), held=Holding({}, stopped.holding().assignments))
    assert gone.faults == ("rollout r is gone",)
    twice = stopped.verdict([*stopped.bodies, stopped.bodies[1]])
    assert any("begins a second time" in fault for fault in twice.faults)
    assert any("never began" in fault for fault in stopped.verdict([stopped.bodies[0], *stopped.bodies[2:]]).faults)


def test_a_model_that_was_given_or_taken_in_secret_is_missed(stopped: LoggedFleet) -> None:
    unseen = "what nodes are to serve is not what the entries lead to"
    assert unseen in stopped.verdict([*stopped.bodies, Withdrawn("h", "m", 99)]).faults
    assert verify(chain(stopped.bodies), held=Holding(stopped.holding().rollouts, "x")).faults == (unseen,)


def test_an_end_that_was_noted_must_still_be_in_it(stopped: LoggedFleet) -> None:
    entries = chain(stopped.bodies)
    noted = entries[3].mark
    assert not stopped.verdict(noted=noted).faults
    (forged,) = stopped.verdict(noted=Mark(4, "0" * 64)).faults
    assert forged == "entry 4 is not the one that was noted: the log was written anew"
    (short,) = verify(entries[:3], noted).faults
    assert short == "the log ends with entry 3, and went to 4 when that was noted"


def test_a_broken_chain_is_told_and_what_comes_before_it_is_derived(stopped: LoggedFleet) -> None:
    entries = chain(stopped.bodies)
    entries[4] = msgspec.structs.replace(entries[4], at_s=0.5)
    verdict = verify(entries)
    assert verdict.mark.seq == 4
    assert verdict.faults == ("entry 5 was changed, or one before it: its hash is not its content's",)


def test_rollouts_from_before_the_log_go_on_in_it(stopped: LoggedFleet) -> None:
    """They are taken as they stood when it began."""
    fleet = LoggedFleet("ab", "cd", policy=Policy(healthy_deadline_s=DEADLINE_S))
    kept = Kept(fleet.plan, fleet.course.standing, fleet.course.rollout.nodes)
    has = {name: {"m": NEW if name in "ab" else OLD} for name in NAMES}
    (opened,) = (msgspec.json.decode(msgspec.json.encode(Opened(has, (kept,))), type=Opened),)
    fleet.bodies = [opened]
    fleet.feed(fleet.heard("a", "active"), fleet.heard("b", "active"))
    assert read(chain(fleet.bodies)[0]) == opened
    assert not fleet.verdict().faults
    assert [step.phase for step in fleet.verdict().steps] == ["judging"]
