"""Frozen graphs become ONNX, and say the same."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from foothill.demo.camera.frozen import nodes_of
from foothill.demo.camera.ssd import BOXES, INPUT, SCORES, SIDE, anchors, to_onnx
from tests.foothill.demo.camera.graphs import BOX, CLASS_BIASES, constant, node, ssd


def test_constants_are_read_however_they_are_written() -> None:
    several, negative = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2,), -3, np.int32)
    graph = constant("several", several) + constant("one", np.full((2, 2), 7.5, np.float32))
    nodes = nodes_of(graph + constant("negative", negative) + node("end", "Identity", ["several:0", "^one"]))
    for name, value in (("several", several), ("one", np.full((2, 2), 7.5)), ("negative", negative)):
        read = nodes[name].value
        assert read is not None
        np.testing.assert_array_equal(read, value)
    assert nodes["end"].inputs == ("several",)


def test_what_is_no_graph_is_refused() -> None:
    for data in (b"\x0a\xff", b"\x0f\x01\x02"):
        with pytest.raises(ValueError, match="no frozen graph"):
            nodes_of(data)
    with pytest.raises(ValueError, match="no SSD detector: it has no 'Squeeze'"):
        to_onnx(nodes_of(constant("a", np.ones(2, np.float32))), 1)


def test_an_operation_that_no_such_detector_has_is_named() -> None:
    graph = ssd().replace(b"Relu6", b"Selu6")
    with pytest.raises(ValueError, match="zoom/0 is Selu6"):
        to_onnx(nodes_of(graph), 2)


def test_boxes_are_decoded_about_their_anchors() -> None:
    session = ort.InferenceSession(to_onnx(nodes_of(ssd()), 2), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(1).uniform(-1, 1, (2, 3, SIDE, SIDE)).astype(np.float32)
    boxes, scores = session.run([BOXES, SCORES], {INPUT: picture[:1]})
    known = anchors()
    centre = known[:, :2] + np.array(BOX[:2]) / 10 * known[:, 2:]
    half = known[:, 2:] * np.exp(np.array(BOX[2:]) / 5) / 2
    np.testing.assert_allclose(boxes[0], np.concatenate([centre - half, centre + half], axis=1), atol=1e-5)
    sure = 1 / (1 + np.exp(-np.array(CLASS_BIASES[1:])))
    np.testing.assert_allclose(scores[0], np.tile(sure, (1917, 1)), atol=1e-6)


def test_anchors_are_those_of_the_object_detection_api() -> None:
    """The first ones of the lowest grid are fixed; those of the last cover the picture."""
    known = anchors()
    assert known.shape == (1917, 4)
    np.testing.assert_allclose(known[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(known[1], [0.5 / 19, 0.5 / 19, 0.2 / 2**0.5, 0.2 * 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(known[-6], [0.5, 0.5, 0.95, 0.95], rtol=1e-6)
    np.testing.assert_allclose(known[-1], [0.5, 0.5, 0.95**0.5, 0.95**0.5], rtol=1e-6)
