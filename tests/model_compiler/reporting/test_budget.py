"""Each promise of the budget against what came out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.bootstrap import Interval, paired_difference
from model_compiler.reporting.budget import Outcome, judge
from model_compiler.reporting.findings import (
    Absent,
    Budget,
    Candidate,
    Candidates,
    CompileReport,
    Head,
    Latency,
    NotDone,
    NotMeasured,
    Score,
)
from tests.model_compiler.reporting.example import bare, full

_WHY = NotMeasured("There is none.")
_TEACHER = Candidate("teacher", "fp32", 4000, Score(0.93, 100), Latency(10.0, 9.8, 10.2, 50))


def outcome(
    budget: Budget,
    *,
    score: Score | Absent = _WHY,
    latency: Latency | Absent = _WHY,
    reference: Candidate | Absent = _TEACHER,
) -> Outcome:
    small = Candidate("small", "int8", 1000, score, latency, "small.onnx", chosen=True)
    (found,) = judge(CompileReport(Head("a@1"), budget, Candidates("accuracy", "test", (small,), reference)))
    return found


def lost(mean: float, low: float, high: float) -> Score:
    return Score(0.93 + mean, 100, Interval(mean, low, high))


@pytest.mark.parametrize(
    ("score", "verdict", "certain"),
    [
        (lost(-0.002, -0.004, 0.0), "kept", True),
        (lost(-0.002, -0.009, 0.005), "kept", False),
        (lost(-0.005, -0.005, -0.005), "kept", True),
        (lost(-0.006, -0.009, -0.001), "broken", False),
        (lost(-0.012, -0.018, -0.007), "broken", True),
        (lost(0.01, 0.005, 0.015), "kept", True),
        (Score(0.926, 100), "kept", False),
        (_WHY, "not measured", False),
    ],
)
def test_a_drop_is_certain_when_its_whole_interval_is_on_one_side(
    score: Score | Absent, verdict: str, certain: bool
) -> None:
    found = outcome(Budget(max_drop_points=0.5), score=score)
    assert (found.verdict, found.certain) == (verdict, certain)


@pytest.mark.parametrize(("n", "certain"), [(12, False), (500, False), (600, True)])
def test_a_dozen_rows_without_a_difference_make_nothing_certain(n: int, certain: bool) -> None:
    alike = paired_difference(np.ones(n), np.ones(n), 0)
    found = outcome(Budget(max_drop_points=0.5), score=Score(0.93, n, alike))
    assert (found.verdict, found.certain) == ("kept", certain)


@pytest.mark.parametrize(
    ("latency", "verdict", "certain"),
    [
        (Latency(1.0, 0.95, 1.05, 50), "kept", True),
        (Latency(1.9, 1.7, 2.2, 50), "kept", False),
        (Latency(2.1, 1.9, 2.3, 50), "broken", False),
        (Latency(4.0, 3.9, 4.1, 50), "broken", True),
        (_WHY, "not measured", False),
    ],
)
def test_a_speed_up_is_a_ratio_of_medians(latency: Latency | Absent, verdict: str, certain: bool) -> None:
    found = outcome(Budget(min_speed_up=5.0), latency=latency)
    assert (found.verdict, found.certain) == (verdict, certain)


def test_latency_and_bytes_need_no_reference() -> None:
    taken = Latency(1.0, 0.95, 1.05, 50)
    assert outcome(Budget(max_latency_ms=1.2), latency=taken, reference=_WHY).verdict == "kept"
    assert outcome(Budget(max_bytes=999), reference=_WHY).verdict == "broken"
    assert outcome(Budget(min_speed_up=2.0), latency=taken, reference=_WHY).verdict == "not measured"


def test_every_artifact_is_held_against_every_promise_and_candidates_without_a_file_against_none() -> None:
    outcomes = judge(full())
    assert len(outcomes) == 4 * 4
    assert {each.artifact for each in outcomes} == {"fp32.onnx", "fp16.onnx", "cpu.u8s8.onnx", "trt.s8.onnx"}
    assert {each.artifact for each in outcomes if each.chosen} == {"cpu.u8s8.onnx"}


def test_without_a_budget_nothing_is_judged() -> None:
    assert judge(bare()) == ()
    assert judge(msgspec.structs.replace(full(), candidates=NotDone("Cut short."))) == ()


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(1, 50))
def test_a_promise_that_is_loosened_stays_kept(median: float, spread: float, limit: float) -> None:
    taken = Latency(median, median / (1 + spread), median * (1 + spread), 9)
    if outcome(Budget(max_latency_ms=limit), latency=taken).verdict == "kept":
        assert outcome(Budget(max_latency_ms=limit * 1.5), latency=taken).verdict == "kept"
