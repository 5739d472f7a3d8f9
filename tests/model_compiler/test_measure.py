"""Latencies are taken in turns."""

from __future__ import annotations

import itertools

import numpy as np

from model_compiler.digits.recipe import DigitsBundles
from model_compiler.measure import ROUNDS, Found, times_ms
from model_compiler.replay import Ends

ENDS = Ends("image", ("logits",))


def test_artifacts_take_turns_and_every_run_is_told(bundles: DigitsBundles) -> None:
    """The clock advances by 1 ms during each run of the first artifact and by 3 ms during each of the second."""
    readings = itertools.count()
    steps = itertools.cycle([0.001, 0.003])
    now = 0.0

    def clock() -> float:
        nonlocal now
        turn = next(readings) - 1  # the first reading is when it all begins; then begin, begin, .., and one a turn
        if turn >= 0 and turn % 5 in (1, 3):
            now += next(steps)
        return now

    paths = {"a": bundles.edge.file("cpu.u8s8.onnx"), "b": bundles.edge.file("fp32.onnx")}
    found = times_ms(paths, np.zeros((3, 1, 32, 32), np.float32), ENDS, clock=clock)
    assert {name: set(times) for name, times in found.items()} == {"a": {1.0}, "b": {3.0}}
    assert {len(times) for times in found.values()} == {ROUNDS}


def test_the_latency_is_the_median_and_nothing_where_nothing_ran() -> None:
    assert Found(bytes=1, samples=0, times_ms=(1.0, 2.0, 9.0)).latency_ms == 2.0
    assert Found(bytes=1, samples=0, times_ms=()).latency_ms is None
