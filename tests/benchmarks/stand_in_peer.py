"""A server of several processes, as peers are: `python stand_in_peer.py CONFIG.json`.

What listens is a child of the program, in a session of its own, and starts another child that only sleeps and heeds no
SIGTERM. With `wrong` in its name the model is answered with other numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Answering(BaseHTTPRequestHandler):
    """Bytes in, bytes out."""

    protocol_version = "HTTP/1.1"
    session: ort.InferenceSession
    config: dict[str, Any]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        row = np.frombuffer(self.rfile.read(int(self.headers["Content-Length"])), "<f4")
        given = row.reshape(1, *self.config["row"])
        answer = self.session.run([self.config["output"]], {self.config["input"]: given})[0]
        self._answer((answer + float("wrong" in self.path)).tobytes())

    def log_message(self, *_arguments: object) -> None:
        """Nothing is logged."""

    def _answer(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def serve(config: dict[str, Any]) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    Answering.session = ort.InferenceSession(config["onnx"], options, providers=["CPUExecutionProvider"])
    Answering.config = config
    with Server(("127.0.0.1", config["port"]), Answering) as server:
        subprocess.Popen([sys.executable, "-c", _STUBBORN], start_new_session=True)
        server.serve_forever()


if __name__ == "__main__":
    if sys.argv[2:]:
        serve(json.loads(Path(sys.argv[1]).read_text()))
    else:
        subprocess.Popen([sys.executable, __file__, sys.argv[1], "child"], start_new_session=True).wait()
