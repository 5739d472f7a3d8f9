"""A box with cameras, as its operator has it: `python -m edge_node site.toml`, read over HTTP."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from benchmarks.machine import cpu_s
from benchmarks.stage import Stage
from edge_node.cameras.web.views import CameraView
from foothill import toml
from foothill.processes import http_ready
from model_compiler.pack import Packed
from runtime.links.process.ports import free_ports

Keys = Mapping[str, Any]
"""Of one `[[cameras]]`."""


_LOOK_S = 0.5
_LISTENED_S = 2.0


class Usage(msgspec.Struct, frozen=True):
    """`threads` and resident bytes of a process now."""

    threads: int
    rss_bytes: int


class Site:
    """One that runs. Cameras follow its file."""

    def __init__(self, pid: int, url: str, file: Path, head: Keys) -> None:
        self.pid = pid
        self.url = url
        self._file = file
        self._head = head
        self._client = httpx.Client(base_url=url, timeout=30.0)

    def become(self, cameras: Sequence[Keys]) -> None:
        """The file is looked at every second."""
        self._file.write_text(toml.dumps({**self._head, "cameras": [*cameras]}))

    def views(self) -> dict[str, CameraView]:
        told = msgspec.json.decode(self._client.get("/v1/cameras").content, type=list[CameraView])
        return {view.name: view for view in told}

    def wait_for(self, camera: str, pictures: int) -> int:
        """How many a camera's model has seen, once they are so many. It is not asked more often than a page asks."""
        while True:
            view = self.views().get(camera)
            if view is not None and view.frames.inferred >= pictures:
                return view.frames.inferred
            time.sleep(_LOOK_S)

    def hearing(self, kind: str, *, recent: int = 0) -> list[bytes]:
        """What is said of that type from now on, and the last ones before: it grows until the site ends."""
        heard: list[bytes] = []
        listening = threading.Event()

        def hear() -> None:
            with (
                suppress(httpx.HTTPError),
                httpx.stream(
                    "GET", f"{self.url}/v1/cameras/events?type={kind}&recent={recent}", timeout=None
                ) as events,
            ):
                listening.set()
                heard.extend(line[6:].encode() for line in events.iter_lines() if line.startswith("data: "))

        threading.Thread(target=hear, daemon=True).start()
        listening.wait(10.0)
        return heard

    def fetch_snapshots(self) -> None:
        """All that rules have had of late, once each, as somebody off the box would."""
        heard = self.hearing("rule", recent=1000)
        time.sleep(_LISTENED_S)
        told = [msgspec.json.decode(body) for body in list(heard)]
        for path in {each["snapshot"] for each in told if each["snapshot"]}:
            self._client.get(path)

    @property
    def spooled(self) -> int:
        """Inputs that were kept for a cloud that was away."""
        return self.count("foothill_spool_spooled_total")

    def count(self, metric: str) -> int:
        """Of all its labels together."""
        told = re.findall(rf"^{metric}(?:\{{.*\}})? (\d+)", self._client.get("/metrics").text, re.MULTILINE)
        return sum(map(int, told))

    def fetch(self, path: str) -> int:
        """The status."""
        return self._client.get(path).status_code

    @property
    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    @property
    def usage(self) -> Usage:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        return Usage(int(told["Threads"]), int(told["VmRSS"].split()[0]) << 10)


@contextmanager
def running(
    stage: Stage,
    cameras: Sequence[Keys],
    *,
    bundle: Packed | None,
    broker_url: str = "",
    audit_rate: float = 0.0,
    disk: Path | None = None,
    **keys: Any,
) -> Iterator[Site]:
    """On this process's cores, until the context ends. All that it writes, its log too, is below `disk`. Raises
    ProcessError."""
    port = keys.pop("port", 0) or free_ports(1)[0]
    directory = stage.work / f"site-{port}"
    directory.mkdir()
    disk = disk or directory
    bundles = {bundle.manifest.model: {"path": str(bundle.directory), "digest": bundle.digest}} if bundle else {}
    head = {
        "port": port,
        "state_dir": str(disk / "state"),
        "broker_url": broker_url,
        "alone": {"node": "box", "bundles": bundles, "audit_rate": audit_rate},
        **keys,
    }
    url = f"http://127.0.0.1:{port}"
    file = directory / "site.toml"
    file.write_text(toml.dumps({**head, "cameras": [*cameras]}))
    logged = ["sh", "-c", 'exec "$@" 2>>"$0"', str(disk / "log")]
    command = [*logged, sys.executable, "-m", "edge_node", str(file)]
    with stage.child(f"site-{port}", command, http_ready(f"{url}/v1/cameras")) as child:
        yield Site(child.pid, url, file, head)


def rtsp(name: str, url: str, **more: Any) -> dict[str, Any]:
    """The keys of a camera whose every picture is seen."""
    return {"name": name, "url": url, "decoder": "software", "motion": {"enabled": False}, **more}
