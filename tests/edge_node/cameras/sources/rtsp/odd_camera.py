"""A camera with the habits of some real ones, which GStreamer's server has not: it speaks RTSP over a real socket."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

Requests = list[tuple[str, str, dict[str, str]]]
"""What was asked: method, address and headers, whose names are in lower case."""

SDP = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n"


def interleaved(data: bytes, channel: int = 0) -> bytes:
    return b"$" + bytes((channel,)) + len(data).to_bytes(2, "big") + data


class OddCamera:
    """`answers`: by method, what it says instead of yes; of several, one after the other. After the answer to PLAY it
    sends `sends`, each by itself; before it, `early`. Then it keeps answering."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.early: Sequence[bytes] = ()
        self.sends: Sequence[bytes] = ()
        self.public = "DESCRIBE, SETUP, PLAY, GET_PARAMETER"
        self.session = "77;timeout=2"
        self.transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
        self.sdp = SDP
        self.dribbles = False
        self.requests: Requests = []
        self.packets: list[bytes] = []
        self.said: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/cam"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.close()

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                threading.Thread(target=self._talk, args=(caller,), daemon=True).start()

    def _talk(self, caller: socket.socket) -> None:
        with suppress(OSError, ValueError), caller, caller.makefile("rb") as heard:
            while first := heard.read(1):
                if first == b"$":
                    _, size = struct.unpack(">BH", heard.read(3))
                    self.packets.append(heard.read(size))
                    continue
                line = (first + heard.readline()).decode().rstrip()
                headers = dict(_headers(heard))
                if line.startswith("RTSP/"):
                    self.said.append(line)
                    continue
                method, url, _ = line.split(" ")
                self.requests.append((method, url, headers))
                self._answer(caller, method, headers["cseq"])

    def _answer(self, caller: socket.socket, method: str, sequence: str) -> None:
        told = self.answers.get(method, [])
        if method == "PLAY" and not told:
            for data in self.early:
                caller.sendall(data)
        caller.sendall((told.pop(0) if told else self._yes(method)).replace("{cseq}", sequence).encode())
        if method == "PLAY" and not told:
            for data in self.sends:
                for piece in (data[at : at + 1] for at in range(len(data))) if self.dribbles else (data,):
                    caller.sendall(piece)

    def _yes(self, method: str) -> str:
        more = {
            "OPTIONS": f"Public: {self.public}\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(self.sdp)}\r\n",
            "SETUP": f"Session: {self.session}\r\nTransport: {self.transport}\r\n",
        }.get(method, "")
        return f"RTSP/1.0 200 OK\r\nCSeq: {{cseq}}\r\n{more}\r\n" + (self.sdp if method == "DESCRIBE" else "")


def refusal(status: int, *headers: str) -> str:
    return "\r\n".join((f"RTSP/1.0 {status} No", "CSeq: {cseq}", *headers, "", ""))


def _headers(heard: object) -> Iterator[tuple[str, str]]:
    readline: Callable[[], bytes] = heard.readline  # type: ignore[attr-defined]
    while (line := readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


@contextmanager
def odd_camera() -> Iterator[OddCamera]:
    camera = OddCamera()
    try:
        yield camera
    finally:
        camera.close()
