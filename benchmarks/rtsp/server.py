"""A GStreamer RTSP server as a process, started and told to fail by whoever tests cameras."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

PYTHON = "/usr/bin/python3"
"""Debian's, for which its bindings of GStreamer are."""
_PROGRAM = Path(__file__).with_name("gstreamer.py")
_NEEDED = "rtph264pay", "h264parse", "rtph265pay", "h265parse", "rtpjpegpay", "jpegparse", "appsrc"
_TRIAL = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    f"print(','.join(name for name in {_NEEDED!r} if Gst.ElementFactory.find(name) is None))"
)


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """`clip` as benchmarks.rtsp.clips writes them; its pictures come `after_ms` after those of other paths."""

    path: str
    clip: str
    fps: int
    codec: str = "h264"
    user: str = ""
    password: str = ""
    digest: bool = False
    after_ms: int = 0


def what_is_missing() -> str:
    """Why there can be no such server here; "" where there can."""
    try:
        told = subprocess.run([PYTHON, "-c", _TRIAL], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return f"{PYTHON}: {error.strerror}"
    if told.returncode:
        return "Debian's gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed"
    return f"GStreamer here has no {told.stdout.strip()}" if told.stdout.strip() else ""


class RtspServer:
    """One that runs. `url` has no path."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.url = f"rtsp://127.0.0.1:{self.port}"

    def do(self, path: str, what: str, **more: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"path": path, "do": what, **more}) + "\n")
        self._process.stdin.flush()

    def hang(self, hangs: bool) -> None:
        """As a camera whose software has died: its connections stay, it even takes new ones, and nothing comes."""
        self._process.send_signal(signal.SIGSTOP if hangs else signal.SIGCONT)

    def end(self) -> None:
        """As when its cable is pulled: nobody is told."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(mounts: Sequence[Mount], *, port: int = 0) -> Iterator[RtspServer]:
    arguments = [msgspec.json.encode(mount).decode() for mount in mounts]
    process = subprocess.Popen(
        [PYTHON, str(_PROGRAM), str(port), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    server = RtspServer(process)
    try:
        yield server
    finally:
        server.end()
