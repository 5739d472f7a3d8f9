"""A relay that holds a node's power: `POST /off` ends its process, `POST /on` starts it, for who has the token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "relay-secret"


@contextmanager
def relay(off: Callable[[], None], on: Callable[[], None]) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and what it was asked so far."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if allowed:
                asked.append(self.path)
                {"/off": off, "/on": on}[self.path]()
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
