"""What the stages give reaches the report whole."""

from __future__ import annotations

import numpy as np
import pytest

from model_compiler.calibration import confidence_of
from model_compiler.confidence import Promise, fit_rule
from model_compiler.learning.distil import Trial
from model_compiler.learning.prune import PrunedLayer, PruneReport
from model_compiler.learning.size import Size
from model_compiler.learning.ways import PAPERS
from model_compiler.quantizing.diagnose import Diagnosis, Finding
from model_compiler.reporting import gather
from model_compiler.reporting.findings import CompileReport, Confidence, Head, Learning
from model_compiler.reporting.report import report_of
from model_compiler.stages import Ran


def place(tensor: str, *, gain: float | None, causes: tuple[str, ...] = (), takers: tuple[str, ...] = ()) -> Finding:
    return Finding(f"write-{tensor}", tensor, takers, 20.0, 18.0, 25.0, gain, gain, causes, "")  # type: ignore[arg-type]


def test_stages_say_whether_they_were_run() -> None:
    told = gather.stages_of([Ran("a@1", "prune", 2.0, True), Ran("a@1", "distil", 3.0, False)])
    assert [(each.stage, each.took_s, each.reused) for each in told] == [("prune", 2.0, True), ("distil", 3.0, False)]


def test_pruning_and_ways_make_the_learning_part() -> None:
    size = Size(100, 90, 1000, 400, 380)
    report = PruneReport("magnitude", 0.5, 0.48, size, size, (PrunedLayer("conv", ("conv", "next"), 32, 16),))
    trials = (Trial("kd", 0.91), Trial("plain", 0.90))
    learning = Learning(gather.pruning_of(report), gather.ways_of(trials, PAPERS), 100)
    assert learning.pruning.layers[0].layers == 2  # type: ignore[union-attr]
    assert [each.winner for each in learning.ways] == [True, False]
    assert "Hinton" in learning.ways[0].paper
    report_of(CompileReport(Head("a@1"), learning=learning))


def test_a_diagnosis_is_drawn_in_the_order_of_the_graph_and_told_by_what_costs() -> None:
    found = Diagnosis(
        0.90, 0.88, 500, 17.0,
        (
            place("late", gain=1.2, takers=("a", "b")),
            place("early", gain=0.0),
            place("caused", gain=None, causes=("outlier channel",)),
            place("unseen", gain=None),
        ),
    )  # fmt: skip
    told = gather.diagnosis_of(found, ("early", "caused", "late"), {"a": "fp16", "b": "fp16"})
    assert [each.tensor for each in told.layers] == ["early", "caused", "late"]
    assert [each.precision for each in told.layers] == ["int8", "int8", "fp16"]
    assert [each.tensor for each in told.findings] == ["late", "caused"]
    assert told.lost_points == pytest.approx(2.0)
    half = gather.diagnosis_of(found, ("late",), {"a": "fp16"})
    assert half.layers[0].precision == "int8"


@pytest.mark.parametrize("epsilon", [0.05, 0.0001], ids=["feasible", "infeasible"])
def test_a_fitted_rule_is_told_with_its_curve(epsilon: float) -> None:
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 1_200)
    logits = rng.normal(size=(1_200, 4)).astype(np.float32)
    logits[np.arange(1_200), answers] += 3.0
    fitted = fit_rule(
        logits[:600], answers[:600], logits[600:], answers[600:], Promise(epsilon, 0.05),
        stratum="s", cloud_digest="sha256:" + "0" * 64,
    )  # fmt: skip
    scores = confidence_of(logits[600:], fitted.chosen.maps)
    differs = logits[600:].argmax(axis=1) != answers[600:]
    rule = gather.rule_of("a.onnx", fitted, scores.tolist(), differs.tolist())
    assert rule.feasible == (epsilon == 0.05)
    assert len(rule.maps) == 2
    assert sum(each.chosen for each in rule.maps) == 1
    if rule.feasible:
        nearest = min(rule.curve, key=lambda point: abs(point.escalation - rule.escalation))
        assert nearest.risk == pytest.approx(rule.risk, abs=0.01)
    report_of(CompileReport(Head("a@1"), confidence=Confidence((rule,))))
