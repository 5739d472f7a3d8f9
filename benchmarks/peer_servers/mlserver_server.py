"""MLServer: `.venv-peer-mlserver/bin/python mlserver_server.py CONFIG.json`.

Without worker processes, access log and gzip, as its documentation advises for one core. Its HTTP side knows no binary
tensors. So there are two ways in: the Open Inference Protocol with the tensor's bytes in base64, which its adaptive
batching serves, and a custom handler that takes and gives bytes, which it does not.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import Request, Response
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop


class Model(MLModel):
    """The ONNX file of `parameters.extra`, at `/v2/models/MODEL/infer` and at `/bytes`."""

    async def load(self) -> bool:
        self._config = self.settings.parameters.extra
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(self._config["onnx"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = b"".join(Base64Codec.decode_input(payload.inputs[0]))
        answers = [row.tobytes() for row in self._run(rows)]
        output = Base64Codec.encode_output(self._config["output"], answers, use_bytes=False)
        return InferenceResponse(model_name=self.name, outputs=[output])

    @custom_handler(rest_path="/bytes")
    async def answer_bytes(self, request: Request) -> Response:
        return Response(self._run(await request.body()).tobytes(), media_type="application/octet-stream")

    def _run(self, rows: bytes) -> np.ndarray:
        tensor = np.frombuffer(rows, np.float32).reshape(-1, *self._config["row"])
        return self._session.run([self._config["output"]], {self._config["input"]: tensor})[0]


async def main(config: dict) -> None:
    server = MLServer(
        Settings(
            debug=False,
            host="127.0.0.1",
            http_port=config["port"],
            grpc_port=config["grpc_port"],
            metrics_endpoint=None,
            parallel_workers=0,
            gzip_enabled=False,
        )
    )
    model = ModelSettings(
        name=config["model"],
        implementation=Model,
        parameters={"extra": config},
        max_batch_size=config["max_batch"],
        max_batch_time=config["delay_ms"] / 1000,
    )
    await server.start([model])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
