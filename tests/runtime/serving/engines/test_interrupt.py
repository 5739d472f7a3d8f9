"""Runs of real ONNX Runtime, one at a time and beside each other: given up, they end soon, and others go on."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.deadlines import Deadline
from runtime.serving.batching.service_times import ServiceTimes
from runtime.serving.batching.turns import Turns
from runtime.serving.engines.engine import Interrupted, Interruptible
from runtime.serving.engines.onnx_engine import OnnxEngine
from runtime.serving.engines.providers import ON_CPU
from runtime.serving.engines.tensors import Array
from runtime.serving.models.batcher import Batcher

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
    few, many = ones(1), ones(20_000)
    engine.run(few)
    stopper = threading.Timer(0.05, engine.interrupt, [threading.get_ident()])
    stopper.start()
    began_s = time.monotonic()
    with pytest.raises(Interrupted):
        engine.run(many)
    assert time.monotonic() - began_s < 20
    stopper.join()
    assert engine.run(few)[f"x{LAYERS}"].sum() == WIDTH
    engine.interrupt(threading.get_ident())
    assert engine.run(few)[f"x{LAYERS}"].sum() == WIDTH


def test_of_two_runs_at_once_the_one_that_is_given_up_ends_and_the_other_goes_on(engine: OnnxEngine) -> None:
    assert engine.concurrent
    engine.run(ones(1))
    with ThreadPoolExecutor(2) as pool:
        begun = [Queue[int](), Queue[int]()]
        ends: list[str] = []

        def run(which: int, rows: int) -> float:
            begun[which].put(threading.get_ident())
            try:
                return float(engine.run(ones(rows))[f"x{LAYERS}"].sum())
            finally:
                ends.append(("given up", "the other")[which])

        given_up, other = pool.submit(run, 0, 40_000), pool.submit(run, 1, 4_000)
        thread = begun[0].get(timeout=10)
        begun[1].get(timeout=10)
        while not given_up.done():
            # Said before its run has begun it says nothing.
            engine.interrupt(thread)
            time.sleep(0.01)
        with pytest.raises(Interrupted):
            given_up.result()
        assert other.result(timeout=60) == 4_000 * WIDTH
    assert ends == ["given up", "the other"]


async def test_two_lanes_run_one_session_at_once(engine: OnnxEngine) -> None:
    """The short run begins while the long one is under way, and ends before it."""
    batcher = Batcher(
        engine.run,
        ServiceTimes(20_000),
        name="deep",
        batches=True,
        turns=Turns(2),
        lanes=2,
        interrupt=engine.interrupt,
    )
    deadline = Deadline.after(60_000, now_s=time.monotonic())
    long = asyncio.create_task(batcher.submit(ones(20_000), deadline))
    await asyncio.sleep(0.05)
    short = await batcher.submit(ones(1), deadline)
    assert short.outputs[f"x{LAYERS}"].sum() == WIDTH
    assert not long.done()
    long.cancel()
    await batcher.close()


def ones(rows: int) -> dict[str, Array]:
    return {"x0": np.ones((rows, WIDTH), np.float32)}
