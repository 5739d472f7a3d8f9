from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.acceptance import CHECKS, Acceptance, Check, Outcome, decode, differences, verdict_of
from contracts.boards import Fingerprint
from contracts.errors import FoothillError

FULL = tuple(Check(name, "passed", "") for name in CHECKS)
MACHINE = Fingerprint(
    "jetson-orin-nano", "aarch64", "linux 5.15", 6, 8 << 30, "CUDAExecutionProvider", "onnxruntime 1.23.2",
    sm=87, sm_count=8, tensorrt="10.3.0.30", jetpack="L4T 36.4.3", power_mode="15W",
)  # fmt: skip


def with_check(outcome: Outcome, *, optional: bool = False) -> tuple[Check, ...]:
    """The full suite, one check of it another way."""
    return (*FULL[:-1], msgspec.structs.replace(FULL[-1], outcome=outcome, optional=optional))


def test_the_full_suite_alone_passes() -> None:
    assert verdict_of(FULL) == "passed"
    assert verdict_of(FULL[1:]) == "partial"
    assert verdict_of(()) == "partial"
    assert verdict_of(with_check("skipped")) == "partial"
    assert verdict_of(with_check("skipped", optional=True)) == "passed"
    assert verdict_of(with_check("failed", optional=True)) == "failed"


@given(
    st.lists(st.builds(Check, st.sampled_from(CHECKS), st.sampled_from(["passed", "failed", "skipped"]), st.just("")))
)
def test_one_failure_is_enough_and_what_was_left_out_is_never_passed(checks: list[Check]) -> None:
    verdict = verdict_of(checks)
    assert (verdict == "failed") == any(check.outcome == "failed" for check in checks)
    if verdict == "passed":
        assert {check.name for check in checks} == set(CHECKS)
        assert all(check.outcome == "passed" for check in checks)


def test_another_jetpack_tensorrt_or_power_mode_is_another_class_of_machine() -> None:
    replace = msgspec.structs.replace
    assert differences(MACHINE, MACHINE) == ()
    assert differences(MACHINE, replace(MACHINE, jetpack="L4T 36.4.4")) == ("jetpack L4T 36.4.3, here L4T 36.4.4",)
    assert differences(MACHINE, replace(MACHINE, tensorrt=None)) == ("tensorrt 10.3.0.30, here none",)
    assert len(differences(MACHINE, replace(MACHINE, power_mode="25W", sm_count=4))) == 2
    assert differences(MACHINE, replace(MACHINE, board="another carrier board")) == ()
    assert differences(MACHINE, replace(MACHINE, cores=4, memory_bytes=1, os="linux 6.1")) == ()


def report(**changes: object) -> bytes:
    built = Acceptance("b", "http://b", "b", "cpu-x86", "passed", 1.0, 2.0, "0.1", FULL)
    return msgspec.json.encode(msgspec.to_builtins(built) | changes)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no acceptance report"),
        (b"[]", "no acceptance report"),
        (b"\xff", "no acceptance report"),
        (report(schema=2), "schema 2"),
        (report(checks=[]), "says passed, and its checks do not"),
        (report(verdict="fine"), "no acceptance report"),
        (report(extra=1), "no acceptance report"),
        (report(seconds=1e300), "no acceptance report"),
        (b" " * ((1 << 20) + 1), "over"),
    ],
    ids=["nothing", "list", "bytes", "schema", "verdict", "word", "field", "figure", "large"],
)
def test_what_is_no_report_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(FoothillError, match=told):
        decode(data)


def test_a_report_comes_back_as_it_was() -> None:
    assert decode(report()).checks == FULL
