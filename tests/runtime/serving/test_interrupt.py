"""Giving up a run of real ONNX Runtime: it ends soon, and the session goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.serving.engine import Interrupted, Interruptible
from runtime.serving.onnx_engine import OnnxEngine
from runtime.serving.providers import ON_CPU

WIDTH, LAYERS = 256, 200


@pytest.fixture
def engine(tmp_path: Path) -> OnnxEngine:
    """Two hundred layers: a fraction of a second for a few hundred rows, so that a run ends long after it began."""
    weights = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", [f"x{layer}", "w"], [f"x{layer + 1}"]) for layer in range(LAYERS)]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x0", f"x{LAYERS}")]
    graph = helper.make_graph(nodes, "deep", value[:1], value[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "deep.onnx"
    path.write_bytes(model.SerializeToString())
    return OnnxEngine(path, plan=ON_CPU, threads=1)


def test_a_run_is_given_up_and_the_next_one_is_not(engine: OnnxEngine) -> None:
    assert isinstance(engine, Interruptible)
    few, many = {"x0": np.ones((1, WIDTH), np.float32)}, {"x0": np.ones((20_000, WIDTH), np.float32)}
    engine.run(few)
    stopper = threading.Timer(0.05, engine.interrupt)
    stopper.start()
    began_s = time.monotonic()
    with pytest.raises(Interrupted):
        engine.run(many)
    assert time.monotonic() - began_s < 20
    stopper.join()
    assert engine.run(few)[f"x{LAYERS}"].sum() == WIDTH
    engine.interrupt()
    assert engine.run(few)[f"x{LAYERS}"].sum() == WIDTH
