"""Latencies are taken in turns."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from model_compiler.build import build
from model_compiler.digits.recipe import DigitsBundles
from model_compiler.learn import learn
from model_compiler.learning.train import Schedule
from model_compiler.machine import machine
from model_compiler.measure import ROUNDS, WARM_UP, Found, measure, times_ms
from model_compiler.plan import Learning, artifacts_for
from model_compiler.replay import Ends
from tests.model_compiler.small import plan, work_on

ENDS = Ends("image", ("logits",))


def test_artifacts_take_turns_and_every_run_is_told(bundles: DigitsBundles) -> None:
    """The clock advances by 1 ms during each run of the first artifact and by 3 ms during each of the second."""
    # When warming up and measuring begin, one reading; then in each turn two a run, and one of how long it has taken.
    advances = itertools.chain(*([0.0, *[0.0, 0.001, 0.0, 0.003, 0.0] * turns] for turns in (WARM_UP, ROUNDS)))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += next(advances)
        return now

    paths = {"a": bundles.edge.file("cpu.u8s8.onnx"), "b": bundles.edge.file("fp32.onnx")}
    found = times_ms(paths, np.zeros((3, 1, 32, 32), np.float32), ENDS, clock=clock)
    assert {name: set(times) for name, times in found.items()} == {"a": {1.0}, "b": {3.0}}
    assert {len(times) for times in found.values()} == {ROUNDS}


def test_of_slow_models_fewer_runs_are_timed(bundles: DigitsBundles) -> None:
    readings = itertools.count(step=4.0)
    found = times_ms(
        {"a": bundles.edge.file("fp32.onnx")}, np.zeros((1, 1, 32, 32), np.float32), ENDS, clock=lambda: next(readings)
    )
    assert found == {"a": (4000.0, 4000.0)}


def test_a_file_that_another_one_beats_is_not_taken_first_without_a_word(tmp_path: Path) -> None:
    """int8 of a network this small is larger and slower than float32."""
    told = plan(artifacts=artifacts_for(("cpu-x86",), ("int8", "fp32")), learning=Learning(Schedule(40, 1e-2)))
    work = work_on(told, tmp_path / "stages")
    learned = learn(work)
    made = build(work, learned)
    found = measure(work, made, learned, {})
    slow, quick = found.forms["cpu.u8s8.onnx"].latency_ms, found.forms["fp32.onnx"].latency_ms
    assert slow is not None
    assert quick is not None
    said = [
        "cpu-x86: nodes take cpu.u8s8.onnx first, and fp32.onnx is smaller, faster" in each for each in work.warnings
    ]
    assert any(said) == (quick < slow)
    assert found.machine == machine()


def test_the_machine_is_told_by_its_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Cortex-A78AE\nmodel name\t: other\n")
    assert " (Cortex-A78AE), " in machine(tmp_path / "cpuinfo")
    assert "(" not in machine(tmp_path / "none")


def test_the_latency_is_the_median_and_nothing_where_nothing_ran() -> None:
    assert Found(bytes=1, samples=0, times_ms=(1.0, 2.0, 9.0)).latency_ms == 2.0
    assert Found(bytes=1, samples=0, times_ms=()).latency_ms is None
