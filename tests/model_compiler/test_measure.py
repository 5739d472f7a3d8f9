"""Latencies are taken in turns; shares are counted."""

from __future__ import annotations

import itertools

import numpy as np

from model_compiler.digits.recipe import DigitsBundles
from model_compiler.measure import latencies_ms, share_equal
from model_compiler.replay import Ends


def test_artifacts_take_turns_and_the_median_is_reported(bundles: DigitsBundles) -> None:
    """The clock advances by 1 ms during each run of the first artifact and by 3 ms during each of the second."""
    starts = itertools.count()
    steps = itertools.cycle([0.001, 0.003])
    now = 0.0

    def clock() -> float:
        nonlocal now
        if next(starts) % 2:
            now += next(steps)
        return now

    paths = {"a": bundles.edge.file("cpu.u8s8.onnx"), "b": bundles.edge.file("fp32.onnx")}
    inputs = np.zeros((3, 1, 32, 32), np.float32)
    assert latencies_ms(paths, inputs, Ends("image", ("logits",)), clock=clock) == {"a": 1.0, "b": 3.0}


def test_shares_count_equal_answers() -> None:
    assert share_equal(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.75
