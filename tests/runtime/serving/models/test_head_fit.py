"""A head whose fields do not fit the outputs is refused, whichever of the two is wrong; one that fits never is."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.manifest import TensorSpec
from runtime.serving.models import postprocess
from runtime.serving.models.head_fit import check_declared, check_shapes
from runtime.serving.models.heads import found_in
from tests.runtime.serving.models.detectors import manifest_of, outputs_for

KINDS = ["yolov8", "yolov8-rows", "yolov5", "yolo-sigmoid", "ssd", "ssd-scores", "nanodet"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_fits_is_taken_however_much_of_its_outputs_is_known(kind: str) -> None:
    manifest = manifest_of(kind)
    check_declared(manifest)
    unknown = tuple(msgspec.structs.replace(spec, shape=(-1,) * len(spec.shape)) for spec in manifest.outputs)
    check_declared(msgspec.structs.replace(manifest, outputs=unknown))
    postprocess.check_found(outputs_for(kind), manifest)


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("yolov8", {"anchors_last": False}, "needs output 'out' with 8 at axis 2: there are 4 labels"),
        ("yolov8", {"objectness": True}, "9 at axis 1"),
        ("yolov5", {"objectness": False}, "8 at axis 2: there are 4 labels, behind 4 other values"),
        ("ssd-scores", {"first_class": 0}, "4 at axis 2"),
        ("ssd", {"classes": ""}, r"with \[rows, found, classes\]; it is \[-1, 3\]"),
        ("ssd-scores", {"classes": "scores"}, r"with \[rows, found\]"),
        ("nanodet", {"reg_max": 7}, r"'boxes-8' with 32 at axis 2: 4 sides of reg_max \+ 1 = 8"),
        ("nanodet", {"strides": (8, 32)}, "'scores-16' with 16 at axis 1: a picture of 128x128 in cells of 32"),
        ("nanodet", {"boxes": ("scores-8", "scores-16")}, "'scores-8' with 44 at axis 2"),
    ],
)
def test_fields_that_do_not_fit_are_named(kind: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(FoothillError, match=told) as refused:
        postprocess.check_head(manifest_of(kind, **changes))
    assert refused.value.code == "bad_bundle"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in outputs_for(kind)])
def test_boxes_and_scores_are_floats(kind: str, name: str) -> None:
    manifest = manifest_of(kind)
    for datatype in ("INT64", "BYTES"):
        outputs = tuple(
            TensorSpec(spec.name, datatype, spec.shape) if spec.name == name else spec for spec in manifest.outputs
        )
        changed = msgspec.structs.replace(manifest, outputs=outputs)
        if (name, datatype) == ("classes", "INT64"):
            check_declared(changed)
        else:
            with pytest.raises(FoothillError, match=f"'{name}' is {datatype}"):
                check_declared(changed)


shapes = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@given(st.sampled_from(KINDS), st.data())
def test_what_is_not_refused_can_be_read(kind: str, data: st.DataObject) -> None:
    """Sizes near those that fit, so that some of them do."""
    made, manifest = outputs_for(kind), manifest_of(kind)
    drawn = {}
    for name, array in made.items():
        near = st.tuples(*(st.sampled_from([size, size, size + 1, max(0, size - 1)]) for size in array.shape))
        drawn[name] = np.full(data.draw(near | shapes.map(tuple)), 0.9, np.float32)
    try:
        check_shapes({name: array.shape for name, array in drawn.items()}, manifest)
    except FoothillError:
        return
    found_in(drawn, manifest)
