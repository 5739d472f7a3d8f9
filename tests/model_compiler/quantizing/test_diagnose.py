"""Diagnosis: planted faults lead the findings, however many there are; each finding says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_compiler.quantizing.diagnose import Diagnosis, Effort, Finding, diagnose, rank
from model_compiler.quantizing.int8 import quantize_cpu, quantize_tensorrt
from model_compiler.quantizing.ranges import Range, Table
from tests.model_compiler.quantizing.patient import ENDS, METRIC, Patient, patient

EFFORT = Effort(rows=32, tried=4)


def examined(case: Patient, **more: float) -> Diagnosis:
    told: list[float] = []
    diagnosis = diagnose(
        case.fp32,
        case.int8,
        case.observations,
        case.table,
        case.samples,
        ENDS,
        METRIC,
        quantize=quantize_cpu,
        effort=EFFORT,
        advance=told.append,
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
    return diagnosis


def test_a_model_that_quantizes_well_has_findings_without_causes(tmp_path: Path) -> None:
    diagnosis = examined(patient(tmp_path))
    assert diagnosis.float_score == 1.0
    assert diagnosis.int8_score > 0.9
    assert diagnosis.answer_db > 25
    assert [each for each in diagnosis.findings if each.causes] == []
    assert {each.tensor for each in diagnosis.findings} >= {"image", "a1", "a2", "a3", "a4"}


@pytest.mark.parametrize("layer", [1, 3, 5])
def test_one_loud_channel_comes_first_with_its_cause(tmp_path: Path, layer: int) -> None:
    worst = examined(patient(tmp_path, loud={layer: 3000.0})).findings[0]
    assert (worst.node, worst.tensor) == (f"c{layer}", f"a{layer}")
    assert worst.causes[0] == "outlier channel"
    assert worst.gain is not None
    assert worst.gain > 5
    assert worst.answer_db < 15
    assert worst.sqnr_db < 15
    assert "Equalize" in worst.advice


def test_a_place_that_wins_back_what_another_costs_does_not_lead() -> None:
    """A layer that is float writes float too: the place before a fault seems to win it back."""

    def found(node: str, *, gain: float, loss: float, answer_db: float) -> Finding:
        return Finding(node, node, (node,), 30.0, 30.0, answer_db, gain, loss, (), "")

    before = found("before", gain=25.0, loss=0.0, answer_db=50.0)
    fault = found("fault", gain=25.0, loss=23.0, answer_db=6.0)
    small = found("small", gain=0.1, loss=0.2, answer_db=21.0)
    assert [each.node for each in sorted((before, small, fault), key=rank)] == ["fault", "small", "before"]


def test_three_faults_that_hide_each_other_all_lead(tmp_path: Path) -> None:
    diagnosis = examined(patient(tmp_path, loud={1: 3000.0, 3: 3000.0, 5: 3000.0}))
    assert {each.node for each in diagnosis.findings[:3]} == {"c1", "c3", "c5"}
    assert all(each.loss is not None and each.loss > 5 for each in diagnosis.findings[:3])


def test_a_range_stretched_in_the_table_is_a_calibration_shift(tmp_path: Path) -> None:
    case = patient(tmp_path)
    stretched = {**case.table.ranges, "a3": Range(0.0, case.table.ranges["a3"].high * 500)}
    quantize_cpu(case.fp32, case.int8, Table("minmax", stretched, case.table.rows))
    worst = examined(case).findings[0]
    assert worst.tensor == "a3"
    assert worst.causes == ("calibration shift", "dead zero point")


def test_a_layer_that_was_left_in_float_is_named(tmp_path: Path) -> None:
    case = patient(tmp_path)
    quantize_cpu(case.fp32, case.int8, case.table, keep={"c2": "fp32"})
    bare = [each for each in examined(case).findings if each.causes == ("missing QDQ",)]
    assert {each.node for each in bare} == {"c1", "c2"}


def test_the_same_inputs_give_the_same_diagnosis(tmp_path: Path) -> None:
    case = patient(tmp_path, loud={2: 100.0})
    assert examined(case) == examined(case)


def test_files_for_tensorrt_are_diagnosed_too(tmp_path: Path) -> None:
    case = patient(tmp_path, loud={3: 3000.0})
    quantize_tensorrt(case.fp32, case.int8, case.table)
    diagnosis = diagnose(
        case.fp32,
        case.int8,
        case.observations,
        case.table,
        case.samples,
        ENDS,
        METRIC,
        quantize=quantize_tensorrt,
        literal=True,
        effort=EFFORT,
    )
    assert diagnosis.findings[0].node == "c3"
    assert diagnosis.findings[0].causes[0] == "outlier channel"
