"""NVIDIA Triton through PyTriton: `.venv-peer-triton/bin/python triton_server.py CONFIG.json`.

Triton speaks HTTP and batches; its Python back end hands the tensors, through shared memory, to the function below.
PyTriton's wheel has that back end only, not Triton's own ONNX Runtime back end. Its settings are those of its
documentation for a CPU: gRPC and metrics off, the dynamic batcher without a delay.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch, sample
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main(path: str) -> None:
    config = json.loads(Path(path).read_text())
    # Triton's stub looks for the library of this Python.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = TritonConfig(
        http_address="127.0.0.1", http_port=config["port"], allow_grpc=False, allow_metrics=False, exit_timeout_secs=1
    )
    with Triton(config=settings, workspace=Path(path).with_suffix("")) as triton:
        _bind(triton, config)
        triton.serve()


def _bind(triton: Triton, config: dict) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(config["onnx"], options, providers=["CPUExecutionProvider"])
    given, asked, batching = config["input"], config["output"], config["max_batch"] > 1

    def infer(**tensors: np.ndarray) -> dict[str, np.ndarray]:
        return {asked: session.run([asked], {given: tensors[given]})[0]}

    # Where Triton does not batch, the first axis belongs to the tensor.
    first = () if batching else (1,)
    triton.bind(
        model_name=config["model"],
        infer_func=batch(infer) if batching else sample(infer),
        inputs=[Tensor(name=given, dtype=np.float32, shape=(*first, *config["row"]))],
        outputs=[Tensor(name=asked, dtype=np.float32, shape=(*first, config["classes"]))],
        config=ModelConfig(
            batching=batching,
            max_batch_size=config["max_batch"],
            batcher=DynamicBatcher(max_queue_delay_microseconds=int(config["delay_ms"] * 1000)),
        ),
    )


if __name__ == "__main__":
    main(sys.argv[1])
