"""What the report says in sentences, and where it says that it loses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from model_compiler.bootstrap import Interval
from model_compiler.reporting import captions
from model_compiler.reporting.budget import Outcome, judge
from model_compiler.reporting.findings import (
    Calibration,
    Candidate,
    Candidates,
    CompileReport,
    Diagnosis,
    Fallback,
    Finding,
    Head,
    Latency,
    LayerNoise,
    Learning,
    NotMeasured,
    Quantizing,
    Score,
    WayTried,
)
from tests.model_compiler.reporting.example import bare, full, infeasible, reliability, rule

_TEACHER = Candidate("teacher", "fp32", 4000, Score(0.93, 1000), Latency(8.0, 7.9, 8.1, 50))


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def tried(*others: Candidate, reference: Any = _TEACHER) -> Candidates:
    return Candidates("accuracy", "the test split", others, reference)


def small(**changed: Any) -> Candidate:
    score = Score(0.927, 1000, Interval(-0.003, -0.006, -0.001))
    made = Candidate("int8", "int8", 400, score, Latency(1.0, 0.98, 1.02, 50), "int8.onnx", chosen=True)
    return msgspec.structs.replace(made, **changed)


def headline(*others: Candidate, reference: Any = _TEACHER) -> str:
    return plain(captions.headline(CompileReport(Head("a@1"), candidates=tried(*others, reference=reference))))


def test_the_headline_holds_bytes_speed_and_loss_against_the_teacher() -> None:
    assert headline(small()) == (
        "Against the teacher, int8.onnx has 90.0 % fewer bytes (400 B, not 4.00 kB), is 8.0× as fast (1.00 ms, not "
        "8.00 ms) and loses 0.30 points of accuracy (95 % interval −0.60 to −0.10)."
    )


def test_the_headline_says_so_when_things_got_worse() -> None:
    worse = small(bytes=6000, latency=Latency(16.0, 15.0, 17.0, 50), score=Score(0.95, 9, Interval(0.02, 0.01, 0.03)))
    said = headline(worse)
    assert "50.0 % more bytes" in said
    assert "takes 2.0× as long" in said
    assert "gains 2.00 points" in said


def test_the_headline_leaves_out_what_is_not_known() -> None:
    unknown = small(latency=NotMeasured("no GPU"), score=NotMeasured("no labels"))
    assert headline(unknown) == "Against the teacher, int8.onnx has 90.0 % fewer bytes (400 B, not 4.00 kB)."
    assert headline(small(), reference=NotMeasured("no teacher")) == (
        "int8.onnx has 400 B, takes 1.00 ms, accuracy 92.70 %."
    )
    assert headline(small(chosen=False)) == ""
    assert captions.headline(bare()) == ""


def of(verdict: Any, *, certain: bool = True, chosen: bool = True) -> Outcome:
    return Outcome("a.onnx", "bytes", 9.0, 1.0, verdict, certain, chosen)


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ((), ""),
        ((of("kept"), of("kept")), "All 2 promises kept by a.onnx."),
        ((of("kept"),), "The promise is kept by a.onnx."),
        ((of("kept"), of("not measured")), "1 of 2 promises kept by a.onnx; not measured: bytes of a.onnx."),
        ((of("kept", certain=False), of("kept")), "All 2 promises kept by a.onnx; not certain: bytes of a.onnx."),
        ((of("kept"), of("broken")), "1 of 2 promises broken (bytes of a.onnx)."),
        ((of("not measured"),), "Not measured: bytes of a.onnx."),
        ((of("kept"), of("broken", chosen=False)), "The promise is kept by a.onnx."),
    ],
)
def test_the_verdict_is_about_what_was_chosen(outcomes: tuple[Outcome, ...], said: str) -> None:
    assert captions.verdict(outcomes) == said


def test_a_clear_loss_and_one_within_chance_are_told_apart() -> None:
    (clear,) = captions.candidates_lose(tried(small()))
    assert plain(clear) == "int8.onnx is under the teacher by 0.10 to 0.60 points (95 % interval)."
    (chance,) = captions.candidates_lose(tried(small(score=Score(0.927, 99, Interval(-0.003, -0.02, 0.01)))))
    assert chance.endswith("these samples cannot tell that from no loss.")
    assert captions.candidates_lose(tried(small(score=Score(0.94, 99, Interval(0.01, 0.001, 0.02))))) == []


def test_a_faster_candidate_that_is_as_good_is_named() -> None:
    float_form = small(
        name="fp32", precision="fp32", bytes=1600, latency=Latency(0.8, 0.79, 0.81, 50), chosen=False, file=""
    )
    said = [plain(each) for each in captions.candidates_lose(tried(small(), float_form))]
    assert (
        "fp32 is faster than int8 (0.800 ms against 1.00 ms) and no worse in accuracy: int8 gains bytes only." in said
    )
    drifted = msgspec.structs.replace(float_form, latency=Latency(0.99, 0.97, 1.01, 50))
    assert not [each for each in captions.candidates_lose(tried(small(), drifted)) if "faster" in each]


def test_a_smaller_candidate_that_is_as_good_is_named_where_it_runs_on_the_same_machine() -> None:
    smaller = small(name="int4", bytes=100, chosen=False)
    assert [each for each in captions.candidates_lose(tried(small(), smaller)) if "fewer bytes" in each]
    elsewhere = msgspec.structs.replace(smaller, latency=NotMeasured("no GPU"))
    assert not [each for each in captions.candidates_lose(tried(small(), elsewhere)) if "fewer bytes" in each]


def learned(control: float, best: float) -> Learning:
    return Learning(ways=(WayTried("plain", control), WayTried("kd", best, winner=True)), validation_samples=1000)


def won_by_control(other: float) -> Learning:
    return Learning(ways=(WayTried("plain", 0.9, winner=True), WayTried("kd", other)), validation_samples=1000)


def test_trials_that_the_control_won_say_no_more_than_was_measured() -> None:
    assert captions.learning_loses(won_by_control(0.8)) == ["In the trials no way beat learning from the labels alone."]
    assert captions.learning_loses(won_by_control(0.899)) == [
        "In the trials no way beat learning from the labels alone; kd is 1 validation sample under it, which may be "
        "chance."
    ]
    assert "kd does as well, which may be chance" in captions.learning_loses(won_by_control(0.9))[0]
    alone = Learning(ways=(WayTried("plain", 0.9, winner=True),), validation_samples=1000)
    assert captions.learning_loses(alone) == []


def test_a_gain_over_the_control_of_a_few_samples_may_be_chance() -> None:
    assert "chance" in captions.learning_loses(learned(0.900, 0.902))[0]
    assert captions.learning_loses(learned(0.900, 0.915)) == []
    assert "1.50 points above the control" in plain(captions.ways_show(learned(0.900, 0.915)))


def test_calibrations_that_are_alike_are_told() -> None:
    alike = Quantizing(9, (Calibration("minmax", 0.900), Calibration("entropy", 0.901)), 1000, 0.905)
    said = [plain(each) for each in captions.calibrations_lose(alike)]
    assert said[0] == "The best of them is 0.40 points under the model in float."
    assert "1 validation sample apart" in said[1]
    apart = Quantizing(9, (Calibration("minmax", 0.80), Calibration("entropy", 0.90)), 1000, 0.90)
    assert captions.calibrations_lose(apart) == []


def test_a_loss_that_no_layer_explains_is_told() -> None:
    layers = (LayerNoise("a", "t", 9.0), LayerNoise("b", "t", 30.0, "fp16"))
    spread = Diagnosis(layers, (Finding("a", "t", 9.0, 0.1), Finding("b", "t", 30.0, 0.0)), 1.2, 100)
    said = [plain(each) for each in captions.noise_loses(spread)]
    assert said[0] == "Of 2 findings, 1 wins nothing back alone."
    assert "spread over many" in said[1]
    assert plain(captions.diagnosis_tells(spread)) == "int8 loses 1.20 points against fp32 on 100 samples."
    untried = Diagnosis(layers, (Finding("a", "t", 9.0),), 1.2)
    assert captions.noise_loses(untried) == []
    shown = plain(captions.noise_shows(spread))
    assert "the lowest is 9.0 dB" in shown
    assert "stay in float (1)" in shown


def test_a_fallback_that_does_not_save_the_budget_says_so() -> None:
    assert captions.fallback_loses(Fallback((), 0.8, 0.85, holds=False)) == ["The budget is still broken."]


def test_certainty_has_its_price_and_calibration_may_fail() -> None:
    (price,) = captions.rule_loses(rule("a"))
    assert "of escalation over what these samples alone would allow" in price
    (failed,) = captions.rule_loses(infeasible("a"))
    assert "made the error larger" in failed
    improved = msgspec.structs.replace(infeasible("a"), after=reliability(0.0, 0.001))
    assert captions.rule_loses(improved) == []


def test_an_infeasible_promise_names_the_least_that_can_be_certified() -> None:
    said = plain(captions.risk_shows(infeasible("a")))
    assert "within 40.0 % of escalation" in said
    assert said.endswith("The smallest ε that they certify is 2.18 %.")


def test_the_example_keeps_its_budget_but_not_for_certain() -> None:
    assert captions.verdict(judge(full())) == (
        "All 4 promises kept by cpu.u8s8.onnx; not certain: lost points of cpu.u8s8.onnx."
    )
