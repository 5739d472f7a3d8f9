"""Gates: where the baseline comes from, and what the test makes of good and bad versions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.manifest import Measured, Measurements
from fleet import gates
from fleet.gates import GateSettings, Tally

SETTINGS = GateSettings()


def run(terms: gates.Terms, rate: float, rng: random.Random) -> gates.Evidence:
    tally = Tally()
    while True:
        tally = tally.counted(agree=rng.random() >= rate)
        evidence = gates.judge(terms, tally)
        if evidence.decision != "continue" or tally.n > 5000:
            return evidence


def test_enough_audits_are_the_baseline() -> None:
    terms = gates.terms_for(Tally(100, 5), Tally(1000, 10), SETTINGS)
    assert terms.source == "audits"
    assert terms.baseline == Tally(100, 5)
    assert 0.05 < terms.p0 < 0.12
    assert terms.p1 == pytest.approx(terms.p0 + 0.10)


def test_few_audits_give_way_to_the_measurement() -> None:
    terms = gates.terms_for(Tally(SETTINGS.min_baseline - 1, 0), Tally(1000, 40), SETTINGS)
    assert terms.source == "measurements"
    assert 0.04 < terms.p0 < 0.06


def test_without_any_baseline_there_is_no_gate() -> None:
    with pytest.raises(FoothillError, match="health") as caught:
        gates.terms_for(Tally(3, 0), None, SETTINGS)
    assert caught.value.code == "conflict"


def test_a_version_that_mostly_disagrees_cannot_be_gated() -> None:
    with pytest.raises(FoothillError, match="no gate"):
        gates.terms_for(Tally(100, 95), None, SETTINGS)


def test_a_perfect_old_version_still_leaves_something_to_test() -> None:
    assert gates.terms_for(Tally(100_000, 0), None, SETTINGS).p0 == pytest.approx(0.005)


@given(st.integers(30, 2000), st.floats(0, 0.5))
def test_p0_is_never_below_what_was_seen(n: int, rate: float) -> None:
    seen = Tally(n, int(n * rate))
    terms = gates.terms_for(seen, None, SETTINGS)
    assert terms.p0 >= seen.disagreements / seen.n
    assert 0 < terms.p0 < terms.p1 < 1


def test_good_versions_pass_and_bad_ones_are_stopped_within_the_stated_rates() -> None:
    rng = random.Random(20)
    terms = gates.terms_for(Tally(200, 10), None, SETTINGS)
    runs = 500
    good = [run(terms, 0.05, rng) for _ in range(runs)]
    bad = [run(terms, terms.p1 + 0.05, rng) for _ in range(runs)]
    assert sum(evidence.decision == "reject" for evidence in good) <= runs * SETTINGS.alpha
    assert sum(evidence.decision == "accept" for evidence in bad) <= runs * SETTINGS.beta
    assert sorted(evidence.n for evidence in bad)[runs // 2] < 150


def test_a_version_just_as_good_as_the_old_one_is_stopped_as_rarely_as_stated() -> None:
    """At the boundary: the baseline is drawn too, and may be luckier than the rate that both versions share."""
    rng = random.Random(21)
    loose = GateSettings(alpha=0.10, baseline_delta=0.15, margin=0.10, min_baseline=30)
    stopped, runs, rate = 0, 1000, 0.08
    for _ in range(runs):
        baseline = Tally(60, sum(rng.random() < rate for _ in range(60)))
        stopped += run(gates.terms_for(baseline, None, loose), rate, rng).decision == "reject"
    stated = loose.alpha + loose.baseline_delta
    assert stopped <= runs * stated + 3 * (runs * stated * (1 - stated)) ** 0.5
    assert stopped > 0
    assert gates.judge(gates.terms_for(Tally(60, 5), None, loose), Tally()).good_stopped == pytest.approx(stated)


def test_the_worst_artifact_speaks_for_a_bundle() -> None:
    measured = Measurements(
        "digits-edge@1",
        {
            "a.onnx": Measured(0.99, 1000, 1.0, 10, agreement=0.98),
            "b.onnx": Measured(0.99, 500, 1.0, 10, agreement=0.90),
            "unruled.onnx": Measured(0.99, 500, 1.0, 10, agreement=0.10),
            "silent.onnx": Measured(0.99, 500, 1.0, 10),
        },
        "test split",
        "2 cores",
    )
    assert gates.measured_tally(measured, frozenset(("a.onnx", "b.onnx", "silent.onnx"))) == Tally(500, 50)
    assert gates.measured_tally(measured, frozenset(("silent.onnx",))) is None
    assert gates.measured_tally(None, frozenset()) is None


def test_settings_out_of_form_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        GateSettings(alpha=0)
