from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.acceptance import CHECKS, Acceptance, Check
from contracts.errors import FoothillError
from fleet.acceptance import Acceptances, Accepted, Demand, DemandRequest, shortfall
from fleet.state import _SCHEMA, State
from runtime.links.bundles import acceptance_reports as reports
from runtime.links.trust.signatures import generate, key_id, public_key
from tests.fleet.scripted import FINGERPRINT, Fleet, until

DAY_S = 86_400.0
KEY, OTHER = generate(), generate()
PUBLIC = public_key(KEY)
FULL = tuple(Check(name, "passed", "") for name in CHECKS)
NOW_S = 1_800_000_000.0


def report(key: bytes | None = KEY, **changes: Any) -> bytes:
    made = Acceptance("b", "http://b", "tokyo", "cpu-x86", "passed", NOW_S, 60.0, "0.1", FULL, fingerprint=FINGERPRINT)
    return reports.seal(msgspec.structs.replace(made, **changes), key)


def accepted(**changes: Any) -> Accepted:
    one = Accepted("sha256:1", "b", "tokyo", "cpu-x86", NOW_S, key_id(PUBLIC), "0.1", FINGERPRINT, NOW_S)
    return msgspec.structs.replace(one, **changes)


DEMAND = Demand("cpu-x86", {key_id(PUBLIC): PUBLIC}, 10 * DAY_S)


def test_a_report_of_the_same_class_by_a_trusted_key_meets_the_demand_while_it_is_young() -> None:
    assert shortfall(DEMAND, [accepted()], FINGERPRINT, NOW_S + 9 * DAY_S) == ""
    assert "11.0 days old, 10 are allowed" in shortfall(DEMAND, [accepted()], FINGERPRINT, NOW_S + 11 * DAY_S)


def test_what_lacks_is_told_by_the_report_that_comes_closest() -> None:
    other = accepted(fingerprint=msgspec.structs.replace(FINGERPRINT, tensorrt="10.3"))
    assert "no passed report" in shortfall(DEMAND, [], FINGERPRINT, NOW_S)
    assert "no passed report" in shortfall(DEMAND, [accepted(target="cpu-arm")], FINGERPRINT, NOW_S)
    assert "tensorrt 10.3, here none" in shortfall(DEMAND, [other], FINGERPRINT, NOW_S)
    assert "trusted no more" in shortfall(DEMAND, [other, accepted(key_id="f" * 16)], FINGERPRINT, NOW_S)
    old = accepted(at_s=NOW_S - 20 * DAY_S)
    assert "days old" in shortfall(DEMAND, [old, accepted(key_id="f" * 16)], FINGERPRINT, NOW_S)


@given(
    st.lists(
        st.builds(
            accepted,
            at_s=st.floats(0, NOW_S),
            key_id=st.sampled_from([key_id(PUBLIC), "f" * 16]),
            target=st.sampled_from(["cpu-x86", "cpu-arm"]),
            fingerprint=st.sampled_from([FINGERPRINT, msgspec.structs.replace(FINGERPRINT, runtime="other")]),
        )
    )
)
def test_the_demand_is_met_by_one_good_report_and_by_nothing_else(known: list[Accepted]) -> None:
    good = any(
        one.target == "cpu-x86"
        and one.key_id == key_id(PUBLIC)
        and one.fingerprint == FINGERPRINT
        and NOW_S - one.at_s <= DEMAND.max_age_s
        for one in known
    )
    assert (shortfall(DEMAND, known, FINGERPRINT, NOW_S) == "") == good


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "fleet.db")
    yield state
    state.close()


@pytest.fixture
def acceptances(state: State) -> Acceptances:
    return Acceptances(state, lambda: NOW_S)


def test_only_passed_reports_of_demanded_targets_by_trusted_keys_are_taken(acceptances: Acceptances) -> None:
    with pytest.raises(FoothillError, match="not among the trusted ones: none"):
        acceptances.submit(report())
    acceptances.require("cpu-x86", DemandRequest((PUBLIC,)))
    partial = FULL[1:]
    for data, told in (
        (report(OTHER), "not among the trusted ones"),
        (report(None), "not signed"),
        (report(target="cpu-arm"), "no acceptance of target 'cpu-arm' is demanded"),
        (report(verdict="partial", checks=partial), "verdict is partial"),
        (report(checks=partial), "says passed, and its checks do not"),
        (report(fingerprint=None), "of which machine"),
        (report(at_s=NOW_S + 2 * DAY_S), "from the future"),
        (b"{}", "no report"),
        (b" " * (2 << 20), "over"),
    ):
        with pytest.raises(FoothillError, match=told):
            acceptances.submit(data)
    assert acceptances.view().reports == ()
    taken = acceptances.submit(report())
    assert acceptances.submit(report()) == taken
    assert acceptances.view().reports == (taken,)
    assert acceptances.report(taken.id) == report()


def test_a_key_for_one_target_is_no_key_for_another(acceptances: Acceptances) -> None:
    acceptances.require("cpu-x86", DemandRequest((public_key(OTHER),)))
    acceptances.require("cpu-arm", DemandRequest((PUBLIC,)))
    with pytest.raises(FoothillError, match="not trusted for cpu-x86"):
        acceptances.submit(report())


def test_rollouts_are_refused_with_targets_nodes_and_what_to_do(acceptances: Acceptances) -> None:
    nodes = [(f"node-{number}", FINGERPRINT) for number in range(7)]
    acceptances.check(nodes)
    acceptances.require("cpu-x86", DemandRequest((PUBLIC,)))
    with pytest.raises(FoothillError, match=r"cpu-x86: no passed report .* \(node-0, .* and 2 more\)") as refused:
        acceptances.check(nodes)
    assert (refused.value.code, "foothill hil run" in refused.value.message) == ("conflict", True)
    acceptances.submit(report())
    acceptances.check(nodes)
    newer = msgspec.structs.replace(FINGERPRINT, jetpack="7.0")
    with pytest.raises(FoothillError, match=r"jetpack none, here 7\.0 \(moved\)"):
        acceptances.check([*nodes, ("moved", newer)])
    acceptances.lift("cpu-x86")
    acceptances.check([("moved", newer)])
    with pytest.raises(FoothillError, match="No acceptance of 'cpu-x86'"):
        acceptances.lift("cpu-x86")


def test_a_key_that_is_trusted_no_more_takes_its_reports_along(acceptances: Acceptances) -> None:
    acceptances.require("cpu-x86", DemandRequest((PUBLIC,)))
    acceptances.submit(report())
    acceptances.require("cpu-x86", DemandRequest((public_key(OTHER),)))
    with pytest.raises(FoothillError, match="trusted no more"):
        acceptances.check([("tokyo", FINGERPRINT)])


def test_the_newest_reports_of_each_target_are_kept(state: State, acceptances: Acceptances) -> None:
    acceptances.require("cpu-x86", DemandRequest((PUBLIC,)))
    state.put_acceptance("other", "cpu-arm", b"\x80", b"")
    first = acceptances.submit(report(at_s=NOW_S - 1000))
    last = [acceptances.submit(report(at_s=NOW_S - number)) for number in range(200)][-1]
    kept = state.acceptances()
    assert len(kept) == 201
    assert state.acceptance_file(first.id) is None
    assert state.acceptance_file(last.id) is not None


def test_a_database_of_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with sqlite3.connect(path) as database:
        database.executescript(_SCHEMA)
    database.close()
    state = State(path)
    state.put_demand("cpu-x86", b"x")
    state.close()
    again = State(path)
    assert again.demands() == [b"x"]
    again.close()


@pytest.mark.integration
async def test_a_rollout_waits_for_the_report_but_for_the_acceptance_itself(
    fleet: Fleet, bundles: dict[str, Path]
) -> None:
    operator = fleet.operator
    await operator.publish(bundles["1"])
    node = await (await operator.enrol("tokyo")).start()
    await operator.enrol("osaka")
    await operator.call("PUT", "/v1/acceptance/cpu-x86", {"keys": [PUBLIC]})
    assert "is demanded and lacking" in (await operator.start("digits-edge@1", expect=409))["message"]
    both = await operator.start("digits-edge@1", nodes=["tokyo", "osaka"], for_acceptance=True, expect=400)
    assert "exactly one node" in both["message"]
    assert "exactly one node" in (await operator.start("digits-edge@1", for_acceptance=True, expect=400))["message"]
    trial = await operator.start("digits-edge@1", nodes=["tokyo"], for_acceptance=True)
    await operator.wait(trial["id"], "completed")

    await operator.call("DELETE", "/v1/nodes/tokyo/models/digits")
    await until(lambda: not node.serving, what="the end of the model on the node")
    await operator.call("DELETE", "/v1/nodes/tokyo/models/digits", expect=404)
    await operator.call("DELETE", "/v1/nodes/nobody/models/digits", expect=404)

    now_s = fleet.parts.acceptances._clock()
    taken = await operator.call("POST", "/v1/acceptance/reports", report(at_s=now_s), expect=201)
    assert (await operator.call("GET", f"/v1/acceptance/reports/{taken['id']}"))["report"]["node"] == "tokyo"
    assert (await operator.call("GET", "/v1/acceptance"))["reports"] == [taken]
    done = await operator.start("digits-edge@1", nodes=["tokyo"])
    await operator.wait(done["id"], "completed")
    await node.stop()


@pytest.mark.integration
async def test_bad_demands_are_refused(fleet: Fleet) -> None:
    for target, body in (
        ("pdp-11", {"keys": [PUBLIC]}),
        ("cpu-x86", {"keys": []}),
        ("cpu-x86", {"keys": ["abc"]}),
        ("cpu-x86", {"keys": [PUBLIC], "max_age_s": 0}),
        ("cpu-x86", {"keys": [PUBLIC], "more": 1}),
    ):
        await fleet.operator.call("PUT", f"/v1/acceptance/{target}", body, expect=400)
    await fleet.operator.call("DELETE", "/v1/acceptance/cpu-x86", expect=404)
    await fleet.operator.call("GET", "/v1/acceptance/reports/sha256:0", expect=404)
    await fleet.operator.call("POST", "/v1/acceptance/reports", b"[]", expect=400)
