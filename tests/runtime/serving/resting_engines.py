"""`python -m tests.runtime.serving.resting_engines MODEL.onnx`: threads that engines start, and CPU time they use idle.

In a process of its own, in which nothing else runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.serving.engines.onnx_engine import OnnxEngine
from runtime.serving.engines.providers import ON_CPU

IDLE_S = 0.3


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def idle_s(run: Callable[[], object]) -> float:
    """CPU time of the process while nothing is asked of it, right after some runs."""
    for _ in range(3):
        run()
    before_s = time.process_time()
    time.sleep(IDLE_S)
    return time.process_time() - before_s


def main(model: Path) -> None:
    feed = {"image": np.random.default_rng(0).normal(size=(256, 1, 64, 64)).astype(np.float32)}
    started, idle = [], []
    for count in (1, 2):
        before = threads()
        engine = OnnxEngine(model, plan=ON_CPU, threads=count)
        started.append(threads() - before)
        idle.append(idle_s(partial(engine.run, feed)))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    spinning = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    spinning_s = idle_s(partial(spinning.run, None, feed))
    print(json.dumps({"started": started, "idle_s": idle, "spinning_s": spinning_s}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
