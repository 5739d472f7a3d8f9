"""A process that runs a model through ONNX Runtime alone: `python -m benchmarks.engine MODEL TENSOR THREADS`.

A line of its input is a number of seconds, for which it calls the model over and over, one row a call, or a list of
times in seconds at which a call is due. It writes a line of JSON: what a server would reach that cost nothing.
"""

from __future__ import annotations

import sys
import time

import msgspec
import numpy as np
import onnxruntime as ort

from benchmarks.told import Calls


def main(model: str, tensor: str, threads: str) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: np.load(tensor)}
    for line in sys.stdin:
        asked = msgspec.json.decode(line, type=float | list[float])
        calls = _due(session, feeds, asked) if isinstance(asked, list) else _run(session, feeds, asked)
        sys.stdout.write(msgspec.json.encode(calls).decode() + "\n")
        sys.stdout.flush()


def _run(session: ort.InferenceSession, feeds: dict[str, np.ndarray], seconds: float) -> Calls:
    latencies_ms: list[float] = []
    started_s = now_s = time.perf_counter()
    started_cpu_s = time.process_time()
    while now_s < started_s + seconds:
        session.run(None, feeds)
        before_s, now_s = now_s, time.perf_counter()
        latencies_ms.append((now_s - before_s) * 1000.0)
    return Calls(now_s - started_s, time.process_time() - started_cpu_s, latencies_ms)


def _due(session: ort.InferenceSession, feeds: dict[str, np.ndarray], at_s: list[float]) -> Calls:
    """One call for each, as soon as it is due and those before it have ended. Latencies run from when it was due."""
    latencies_ms: list[float] = []
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    for due_s in at_s:
        wait_s = started_s + due_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        session.run(None, feeds)
        latencies_ms.append((time.perf_counter() - started_s - due_s) * 1000.0)
    return Calls(time.perf_counter() - started_s, time.process_time() - started_cpu_s, latencies_ms)


if __name__ == "__main__":
    main(*sys.argv[1:4])
