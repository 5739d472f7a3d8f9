"""What the compiler has measured may stand in for audits."""

from __future__ import annotations

from contracts.manifest import Measured, Measurements
from fleet.judging.aims import Tally
from fleet.judging.measured import measured_tally


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
    assert measured_tally(measured, frozenset(("a.onnx", "b.onnx", "silent.onnx"))) == Tally(500, 50)
    assert measured_tally(measured, frozenset(("silent.onnx",))) is None
    assert measured_tally(None, frozenset()) is None
