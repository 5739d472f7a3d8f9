"""All that a box writes lies on a small disk that is full for a while: what goes on, what comes back, what is whole."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import av
import msgspec

from benchmarks.cameras import clips
from benchmarks.cameras.receiver import receiving
from benchmarks.cameras.site import Site, rtsp, running
from benchmarks.cameras.uplink import amended_in
from benchmarks.rtsp.server import Mount, serving
from benchmarks.stage import Stage
from model_compiler.pack import Packed
from runtime.links.process.ports import free_ports

SPAN_S = 12.0
_DISK_MIB = 64
_SETTLE_S = 3.0
_BACK_S = 60.0
_LOOKED_AT = 3
_HEAD: Mapping[str, Any] = {
    "recording": {
        "on": True,
        "pre_s": 1.0,
        "post_s": 1.0,
        "longest_s": 5.0,
        "keep_bytes": 16 << 20,
        "reserve_bytes": 0,
    },
    "spool": {"per_s": 20.0},
    "reserve_bytes": 0,
    "threads": 2,
}
_WRITES = {
    "escalation": {"ask": "always", "again_s": 3.0, "deadline_ms": 500.0},
    "snapshots": {"events": ["track"]},
    "recording": {"events": ["track"]},
}


class Told(NamedTuple):
    """How much was to come, and what of it did not, or twice."""

    due: int
    lost: int
    doubled: int


class Full(NamedTuple):
    """`beside` is the rate of the camera that writes nothing, during over before, `before` and `during` how much was
    said of tracks. `recovery_s`: from the first room on until evidence, snapshots and clips were all kept again.
    `not_kept`: evidence, while there was no room. `unwhole` names what is no whole clip, line or database then."""

    beside: float
    before: int
    during: int
    recovery_s: float
    not_kept: int
    evidence: Told
    webhook: Told
    departures: Told
    clips: int
    unwhole: list[str]


class _Message(msgspec.Struct, frozen=True):
    camera: str
    epoch: int
    sequence: int


class _Box:
    """One that runs. `said` are the messages about tracks; `seen` are the snapshots that somebody looked at."""

    def __init__(self, site: Site, disk: Path) -> None:
        self.site = site
        self.state = disk / "state"
        self.said = site.hearing("track")
        self.seen = 0

    @property
    def kept(self) -> tuple[int, int, int]:
        """Evidence, snapshots and clips, so far."""
        return self.site.spooled, len(self._snapshots()), self.site.count("foothill_clips_total")

    def rate(self) -> float:
        """Of the camera that writes nothing. Meanwhile somebody looks at what the other one has kept."""
        began, began_s = self._inferred(), time.monotonic()
        while time.monotonic() < began_s + SPAN_S:
            time.sleep(1.0)
            for path in sorted(self._snapshots())[:_LOOKED_AT]:
                self.seen += self.site.fetch(f"/v1/cameras/busy/events/{path.stem}/snapshot") == 200
        return (self._inferred() - began) / (time.monotonic() - began_s)

    def _inferred(self) -> int:
        return self.site.views()["well"].frames.inferred

    def _snapshots(self) -> list[Path]:
        return list((self.state / "snapshots/busy").glob("*.jpg"))


def measure(stage: Stage, bundle: Packed) -> Full | None:
    """None where no file system can be mounted: that needs root."""
    with _mounted(stage.work / "disk") as disk:
        return _measured(stage, bundle, disk) if disk is not None else None


def _measured(stage: Stage, bundle: Packed, disk: Path) -> Full:
    office, hook = free_ports(2)
    away: Mapping[str, Any] = {
        "cloud_urls": [f"http://127.0.0.1:{office}"],
        "webhooks": [{"url": f"http://127.0.0.1:{hook}/", "types": ["track"]}],
    }
    mount = Mount("/cam", str(clips.vtest(stage.work)), clips.VTEST_FPS)
    with serving([mount]) as server, running(stage, [], bundle=bundle, disk=disk, **_HEAD, **away) as site:
        box = _Box(site, disk)
        url, model = f"{server.url}/cam", bundle.manifest.model
        site.become(
            [rtsp("busy", url, model=model, **_WRITES), rtsp("well", url, model=model, recording={"on": False})]
        )
        for name in ("busy", "well"):
            site.wait_for(name, 20)
        _wait(lambda: all(box.kept))
        began, usual = len(box.said), box.rate()
        before = len(box.said) - began
        with _full(disk):
            during = box.rate()
            told = len(box.said) - began - before
        recovery_s = _recovery_s(box)
        not_kept = site.count("foothill_spool_dropped_total")
        site.become([])
        _wait(lambda: not site.views())
        with running(stage, [], bundle=bundle, port=office), receiving(hook) as heard:
            evidence, webhook = _evidence(box), _webhook(box, heard)
        _wait(lambda: _pictures_seen(box.state) >= box.seen)
    lines = _pictures_seen(box.state)
    departures = Told(box.seen, max(0, box.seen - lines), max(0, lines - box.seen))
    return Full(
        *(during / usual, before, told, recovery_s, not_kept, evidence, webhook, departures),
        len(_clips(box.state)),
        [*_unwhole(box.state)],
    )


def _recovery_s(box: _Box) -> float:
    """There is room again."""
    began_s, before = time.monotonic(), box.kept
    _wait(lambda: all(now > then for now, then in zip(box.kept, before, strict=True)))
    recovery_s = time.monotonic() - began_s
    time.sleep(_SETTLE_S)
    return recovery_s


def _evidence(box: _Box) -> Told:
    """Once the cloud is there and nothing waits for it: what was said of its answers to what was kept."""
    _wait(lambda: not box.site.count("foothill_spool_inputs"))
    time.sleep(_SETTLE_S)
    spooled, amended = box.site.spooled, amended_in(box.said)
    return Told(spooled, max(0, spooled - len(amended)), amended.total() - len(amended))


def _webhook(box: _Box, heard: list[bytes]) -> Told:
    """What a server heard that was away all the time, beside what was said."""
    _wait(lambda: not _places(box.said) - _places(heard))
    said, got = _places(box.said), _places(heard)
    return Told(said.total(), (said - got).total(), (got - said).total())


def _places(bodies: list[bytes]) -> Counter[_Message]:
    return Counter(msgspec.json.decode(body, type=_Message) for body in list(bodies))


def _wait(true: Callable[[], object]) -> None:
    """For a while: what is not true then is told by the figures."""
    give_up_s = time.monotonic() + _BACK_S
    while not true() and time.monotonic() < give_up_s:
        time.sleep(0.2)


def _pictures_seen(state: Path) -> int:
    """As the record of departures has it."""
    lines = (state / "departures.jsonl").read_bytes().splitlines()
    return sum(b'"what":"snapshot"' in line for line in lines)


def _clips(state: Path) -> list[Path]:
    return list((state / "clips").glob("**/*.mp4"))


def _unwhole(state: Path) -> Iterator[str]:
    for path in state.glob("departures*.jsonl"):
        for line in path.read_bytes().splitlines():
            with _naming(path) as names:
                json.loads(line)
            yield from names
    for path in _clips(state):
        with _naming(path) as names:
            _play(path)
        yield from names
    for path in (state / "snapshots").glob("**/*.jpg"):
        if not path.read_bytes().endswith(b"\xff\xd9"):
            yield path.name
    for path in state.glob("**/*.db"):
        with sqlite3.connect(path) as db:
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                yield path.name
    yield from (path.name for path in state.glob("**/*.bad"))


@contextmanager
def _naming(path: Path) -> Iterator[list[str]]:
    names: list[str] = []
    try:
        yield names
    except (ValueError, av.FFmpegError):
        names.append(path.name)


def _play(path: Path) -> None:
    """Raises ValueError, or what FFmpeg says, for a clip that does not play to its end."""
    json.loads(path.with_suffix(".json").read_bytes())
    with av.open(str(path)) as container:
        if not sum(1 for _ in container.decode(video=0)):
            raise ValueError(f"{path} has no pictures")


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """While it lasts not a page is free: what gives way has its room taken as well."""
    ballast, over = disk / "ballast", threading.Event()

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            while not over.wait(0.02):
                for size in (1 << 20, 4096):
                    with suppress(OSError):
                        while file.write(bytes(size)) == size:
                            pass

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield
    finally:
        over.set()
        filling.join()
        ballast.unlink()


@contextmanager
def _mounted(path: Path) -> Iterator[Path | None]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
