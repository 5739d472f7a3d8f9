"""The risk-against-escalation curve is what its thresholds do to the samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.errors import CompileError
from model_compiler.reporting.curves import risk_curve

rows = st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.5, 0.9, 1.0, float("nan")]), st.booleans()), min_size=1)


@given(rows, st.integers(2, 40))
def test_every_point_is_what_its_threshold_does(rows: list[tuple[float, bool]], points: int) -> None:
    confidence, differs = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    curve = risk_curve(confidence, differs, points=points)
    for point in curve[1:]:
        kept = confidence >= point.threshold
        assert point.escalation == pytest.approx(1 - kept.mean())
        assert point.risk == pytest.approx((kept & differs).mean())
    assert len(curve) <= points + 1


@given(rows)
def test_it_runs_from_keeping_nothing_to_keeping_all_that_has_a_confidence(rows: list[tuple[float, bool]]) -> None:
    confidence, differs = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    curve = risk_curve(confidence, differs)
    assert (curve[0].escalation, curve[0].risk) == (1.0, 0.0)
    assert curve[-1].escalation == pytest.approx(np.isnan(confidence).mean())
    assert [point.escalation for point in curve] == sorted((point.escalation for point in curve), reverse=True)
    assert [point.risk for point in curve] == sorted(point.risk for point in curve)


def test_rows_without_an_answer_each_are_refused() -> None:
    with pytest.raises(CompileError, match="do not pair"):
        risk_curve(np.zeros(3), np.zeros(2, bool))
