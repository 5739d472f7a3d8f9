"""What the outputs of a shared run say to each request is what they would say to it alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from contracts.manifest import Artifact, ConfidenceRule, Isotonic, Manifest, Postprocess, TensorSpec
from runtime.serving.engines.tensors import Array
from runtime.serving.models import postprocess
from runtime.serving.models.found import Found
from runtime.serving.models.heads import found_in
from tests.runtime.serving.models.detectors import manifest_of, outputs_for

MAP = Isotonic((0.0, 0.5, 1.0), (0.1, 0.4, 0.9))
Kind = Literal["logits", "probabilities"]


def described(kind: Kind) -> Manifest:
    return Manifest(
        name="m",
        version="1",
        model="m",
        task="classification",
        tier="edge",
        inputs=(TensorSpec("x", "FP32", (1,)),),
        outputs=(TensorSpec("y", "FP32", (-1, 3)),),
        postprocess=Postprocess("y", kind),
        labels=("a", "b", "c"),
        max_batch=1,
        files={},
        artifacts=(),
        golden=None,  # type: ignore[arg-type]
    )


def artifact(*, ruled: bool, isotonic: bool) -> Artifact:
    rule = ConfidenceRule(
        temperature=2.0,
        threshold=0.5,
        epsilon=0.05,
        delta=0.05,
        n=100,
        feasible=True,
        stratum="a.b.classification",
        cloud_digest="sha256:" + "c" * 64,
        isotonic=MAP if isotonic else None,
    )
    return Artifact("f.onnx", "fp32", "onnxruntime", ("cpu-x86",), rule if ruled else None)


NUMBERS = st.floats(0, 8, width=32) | st.sampled_from([np.nan, np.inf])


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data(), st.booleans(), st.booleans())
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_each_of_a_shared_run_is_read_as_alone(
    kind: Kind, rows: list[int], data: st.DataObject, ruled: bool, isotonic: bool
) -> None:
    values = data.draw(arrays.arrays(np.float32, (sum(rows), 3), elements=NUMBERS))
    manifest, rule = described(kind), artifact(ruled=ruled, isotonic=isotonic)
    ends = np.cumsum(rows).tolist()
    shared = postprocess.read_each({"y": values}, ends, manifest, rule)
    for at, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        reading = shared.of(at)
        alone = postprocess.read({"y": values[start:end]}, manifest, rule)
        assert (reading.confidence, reading.answer) == (alone.confidence, alone.answer)
        assert reading.probabilities is not None
        np.testing.assert_array_equal(reading.probabilities, alone.probabilities)
        if not np.isfinite(values[start:end]).all() and ruled:
            assert reading.confidence == 0.0


def test_who_is_alone_is_told_of_all_rows_however_many_its_input_had() -> None:
    """A model without a batch may make many rows of one."""
    values = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 1]], np.float32)
    reading = postprocess.read_each({"y": values}, (), described("logits"), artifact(ruled=True, isotonic=False)).of(0)
    assert reading.probabilities is not None
    assert len(reading.probabilities) == 3
    assert reading.answer.count(",") == 2


def test_boxes_are_worked_out_once_and_by_who_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(outputs: dict[str, Array], manifest: Manifest) -> tuple[Found, ...]:
        asked.append(1)
        return found_in(outputs, manifest)

    monkeypatch.setattr(postprocess, "found_in", counted)
    readings = postprocess.read_each(
        outputs_for("yolov8"), (), manifest_of("yolov8"), artifact(ruled=False, isotonic=False)
    )
    assert (readings.of(0).confidence, readings.of(0).probabilities, asked) == (None, None, [])
    assert readings.of(0).answer == "bicycle,dog,person"
    found = readings.worked_out().of(0).found
    assert found is not None
    assert (len(found[0].boxes), asked) == (3, [1])
