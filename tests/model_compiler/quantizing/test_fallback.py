"""Mixed precision: the fewest layers in float that keep the budget, what each costs, and a plain word when none do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from model_compiler.quantizing.diagnose import Diagnosis, Effort, Quantize, diagnose
from model_compiler.quantizing.fallback import Budget, Fallback, fall_back
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.placement import Keep
from model_compiler.quantizing.ranges import Table
from tests.model_compiler.quantizing.patient import ENDS, METRIC, Patient, patient

FAULTS = {2: 3000.0, 4: 3000.0}
BUDGET = Budget(12.0, margin=0.0)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    return patient(tmp_path_factory.mktemp("case"), loud=FAULTS, layers=6)


@pytest.fixture(scope="module")
def diagnosis(case: Patient) -> Diagnosis:
    return diagnosed(case)


def diagnosed(case: Patient) -> Diagnosis:
    return diagnose(
        case.fp32,
        case.int8,
        case.observations,
        case.table,
        case.samples,
        ENDS,
        METRIC,
        quantize=quantize_cpu,
        effort=Effort(rows=32, tried=3),
    )


def mended(
    case: Patient, diagnosis: Diagnosis, out: Path, budget: Budget, *, quantize: Quantize = quantize_cpu
) -> Fallback:
    return fall_back(diagnosis, case.fp32, out, case.table, case.samples, ENDS, METRIC, budget, quantize=quantize)


def test_only_the_faulty_places_are_kept(case: Patient, diagnosis: Diagnosis, tmp_path: Path) -> None:
    outcome = mended(case, diagnosis, tmp_path / "mix.onnx", BUDGET)
    assert outcome.holds
    assert outcome.keep == {"c3": "fp16", "c5": "fp16"}
    assert outcome.int8_score < 0.7 < 0.9 < outcome.score
    assert outcome.told.startswith("2 layers in float keep the budget:")
    assert outcome.bytes == (tmp_path / "mix.onnx").stat().st_size
    assert outcome.latency_ratio is not None


def test_each_kept_layer_tells_what_it_costs_and_brings(case: Patient, diagnosis: Diagnosis, tmp_path: Path) -> None:
    costs = {each.node: each for each in mended(case, diagnosis, tmp_path / "mix.onnx", BUDGET).costs}
    assert costs["c3"].gain > 5
    assert costs["c3"].precision == "fp16"
    assert costs["c3"].cost_bytes != 0
    assert costs["c3"].cost_ms is not None


def test_a_margin_for_chance_keeps_more(case: Patient, diagnosis: Diagnosis, tmp_path: Path) -> None:
    plain, careful = (
        mended(case, diagnosis, tmp_path / "mix.onnx", Budget(12.0, margin=margin)) for margin in (0.0, 3.0)
    )
    assert set(plain.keep) < set(careful.keep)
    assert plain.score < careful.score


def test_a_model_within_its_budget_keeps_nothing(tmp_path: Path) -> None:
    case = patient(tmp_path)
    outcome = mended(case, diagnosed(case), tmp_path / "mix.onnx", Budget(20.0))
    assert (outcome.keep, outcome.costs, outcome.holds, outcome.tried) == ({}, (), True, 1)
    assert outcome.told.startswith("Int8 alone keeps the budget:")
    quantize_cpu(case.fp32, tmp_path / "plain.onnx", case.table)
    assert (tmp_path / "mix.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


def test_a_budget_of_bytes_that_nothing_meets_is_told(case: Patient, diagnosis: Diagnosis, tmp_path: Path) -> None:
    outcome = mended(case, diagnosis, tmp_path / "mix.onnx", Budget(8.0, max_bytes=1))
    assert not outcome.holds
    assert outcome.keep == {}
    assert outcome.told.startswith("No mix holds the budget:")
    assert "break its latency or bytes" in outcome.told


def test_a_drop_that_rounding_does_not_explain_is_told(case: Patient, diagnosis: Diagnosis, tmp_path: Path) -> None:
    def stubborn(fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] | None = None) -> None:
        quantize_cpu(fp32, out, table)

    outcome = mended(case, diagnosis, tmp_path / "mix.onnx", Budget(0.5), quantize=stubborn)
    assert not outcome.holds
    assert "What is left is not rounding" in outcome.told


def test_the_same_inputs_give_the_same_mix(case: Patient, diagnosis: Diagnosis, tmp_path: Path) -> None:
    first, again = (mended(case, diagnosis, tmp_path / name, BUDGET) for name in ("a.onnx", "b.onnx"))
    assert first.keep == again.keep
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
