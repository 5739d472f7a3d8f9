"""LitServe: `.venv-peer-litserve/bin/python litserve_server.py CONFIG.json`.

One worker and one process for HTTP, ZeroMQ between them (`fast_queue`), which its documentation advises for speed.
The body is the tensor's bytes, and so is the answer: through JSON it would be slower by far. LitServe looks at the
annotations themselves, so that they may be no strings here.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import litserve as ls
import numpy as np
import onnxruntime as ort
from fastapi import Body, Response

BINARY = "application/octet-stream"


class Api(ls.LitAPI):
    """One model at `/MODEL`; the worker calls these methods in their order."""

    def __init__(self, config: dict) -> None:
        super().__init__(
            api_path=f"/{config['model']}",
            max_batch_size=config["max_batch"],
            batch_timeout=config["delay_ms"] / 1000,
        )
        self._config = config

    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(self._config["onnx"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Annotated[bytes, Body(media_type=BINARY)]) -> np.ndarray:
        return np.frombuffer(request, np.float32).reshape(1, *self._config["row"])

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._session.run([self._config["output"]], {self._config["input"]: x})[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> Response:
        return Response(output.tobytes(), media_type=BINARY)


def main(path: str) -> None:
    config = json.loads(Path(path).read_text())
    server = ls.LitServer(
        Api(config), accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True, disable_openapi_url=True
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.run(
        host="127.0.0.1",
        port=config["port"],
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
