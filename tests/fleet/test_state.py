"""The database: what is committed survives, what fails half-way never was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from contracts.messages import Audit, Certificate, Quality
from contracts.quality import Counts
from fleet.judging.aims import Tally
from fleet.state import DesiredRow, NodeRow, State, TokenRow
from tests.fleet.scripted import FINGERPRINT

NODE = NodeRow("a", "eu", 50.0, 8.0, "http://a", "public", "ab" * 32, FINGERPRINT, 7, b"identity", 1.0)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "fleet.db")


def audit(request_id: str, digest: str = A, *, agree: bool = True, kept: bool = True, node: str = "a") -> Audit:
    return Audit("s", "digits", digest, node, request_id, 0.5, kept, "1", "1" if agree else "2", 0.0)


def test_everything_is_there_after_a_restart(state: State, tmp_path: Path) -> None:
    state.put_node(NODE)
    state.assign("a", "digits", A)
    state.put_desired(DesiredRow("a", 3, 9.0, b"document"))
    state.close()
    again = State(tmp_path / "fleet.db")
    assert again.nodes() == [NODE]
    assert again.node("a") == NODE
    assert again.assigned("a") == {"digits": A}
    assert again.desired() == [DesiredRow("a", 3, 9.0, b"document")]
    assert (again.desired_sequence("a"), again.desired_sequence("b")) == (3, 0)


def test_a_failed_transaction_leaves_nothing(state: State) -> None:
    def half_way() -> None:
        with state.transaction():
            state.put_node(NODE)
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        half_way()
    assert state.nodes() == []
    with state.transaction():
        state.put_node(NODE)
    assert state.nodes() == [NODE]


def test_a_token_is_taken_once_and_not_after_its_time(state: State) -> None:
    token = TokenRow("a", "eu", 50.0, 8.0)
    state.put_token("h1", token, 100.0)
    state.put_token("h2", token, 100.0)
    assert state.take_token("h1", 99.0) == token
    assert state.take_token("h1", 99.0) is None
    assert state.take_token("h2", 100.0) is None
    assert state.take_token("other", 1.0) is None


def test_the_first_certificate_of_a_stratum_stays(state: State) -> None:
    first = Certificate("s", "digits", 0.8, 0.02, 0.05, 100, "live", 1, 0.0)
    assert state.add_certificate(first)
    assert not state.add_certificate(msgspec.structs.replace(first, threshold=0.1))
    assert state.certificates() == [first]


def test_an_audit_counts_once_per_request_and_version(state: State) -> None:
    assert not state.knows_audit(audit("r1"))
    for _ in range(2):
        state.record_audit(audit("r1", agree=False))
    assert state.knows_audit(audit("r1"))
    assert not state.knows_audit(audit("r1", B))
    state.record_audit(audit("r1", B))
    assert state.recent_tally(frozenset((A,))) == Tally(1, 1)
    assert state.recent_tally(frozenset((A, B))) == Tally(2, 1)
    assert state.recent_tally(frozenset(("sha256:none",))) == Tally(0, 0)


def test_the_baseline_is_the_recent_past(state: State) -> None:
    with state.transaction():
        for number in range(5500):
            state.record_audit(audit(f"r{number}", agree=number >= 500))
    assert state.recent_tally(frozenset((A,))) == Tally(5000, 0)


def test_counts_are_booked_once_and_only_of_versions_that_a_node_is_to_serve(state: State) -> None:
    told = Quality("a", 1, {A: Counts(runs=5), B: Counts(runs=3)})
    assert state.bookings(told) == []
    state.assign("a", "digits", A)
    (booking,) = state.bookings(told)
    assert (booking.node, booking.digest, booking.new) == ("a", A, Counts(runs=5))
    assert state.bookings(told) == [booking], "it was not booked yet"
    state.book([booking])
    assert state.bookings(told) == []
    state.book(state.bookings(Quality("a", 2, {A: Counts(runs=1, failed=1)})))
    assert state.counted(frozenset((A, B))) == Counts(runs=6, failed=1)


def test_counts_of_versions_that_a_node_has_no_more_are_forgotten(state: State) -> None:
    for node in ("a", "b"):
        state.assign(node, "digits", A)
        state.book(state.bookings(Quality(node, 1, {A: Counts(runs=5)})))
    state.assign("b", "digits", B)
    state.forget_quality()
    assert state.counted(frozenset((A,))) == Counts(runs=5)


def test_tallies_tell_strata_nodes_and_what_was_kept_wrongly(state: State) -> None:
    state.record_audit(audit("r1", agree=False, kept=True))
    state.record_audit(audit("r2", agree=False, kept=False))
    state.record_audit(audit("r3", node="b"))
    found = {(tally.node, tally.n, tally.disagreements, tally.kept_wrong) for tally in state.audit_tallies()}
    assert found == {("a", 2, 2, 1), ("b", 1, 0, 0)}


def test_taking_a_model_away_leaves_no_assignment(state: State) -> None:
    state.assign("a", "digits", A)
    state.assign("a", "faces", B)
    state.assign("a", "digits", "")
    assert state.assigned("a") == {"faces": B}
    assert state.assigned_digests("digits") == {}
