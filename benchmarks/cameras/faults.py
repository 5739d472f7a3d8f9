"""What becomes of a camera that fails, and of the one beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.cameras import clips
from benchmarks.cameras.site import Site, Usage, rtsp, running
from benchmarks.rtsp.server import Mount, RtspServer, serving
from benchmarks.stage import Stage
from model_compiler.pack import Packed

SPAN_S = 12.0
BACK_OFF_S = 2.0
"""The longest pause between two attempts."""
_STALL_S = 1.0
_USUAL_S = 2.0
_RECONNECTS = 100
_HOUR_PICTURES = 36_000
"""Of a camera at ten pictures a second."""


class Broken(NamedTuple):
    """`beside` is the rate of the other camera during the fault over that before. `recovery_s`: after the end of the
    fault until pictures were seen again."""

    fault: str
    beside: float
    recovery_s: float


class Memory(NamedTuple):
    """Resident bytes and threads after a tenth of `pictures` (or of `reconnects`), and at the end."""

    what: str
    early: Usage
    late: Usage


class _Two:
    """`sick` and `well`, of servers of their own."""

    def __init__(self, stage: Stage, stack: ExitStack, bundle: Packed) -> None:
        self.clips = {name: str(make(stage.work)) for name, make in _CLIPS.items()}
        self._stack = stack
        mount = Mount("/cam", self.clips["usual"], clips.VTEST_FPS)
        self.sick, self.well = (stack.enter_context(serving([mount])) for _ in range(2))
        keys = {"model": bundle.manifest.model, "reconnect_s": BACK_OFF_S, "stall_s": _STALL_S, "frozen_after_s": 2.0}
        cameras = [rtsp("sick", f"{self.sick.url}/cam", **keys), rtsp("well", f"{self.well.url}/cam", **keys)]
        self.site = stack.enter_context(running(stage, cameras, bundle=bundle, threads=2))
        for name in ("sick", "well"):
            self.site.wait_for(name, 20)

    def replug(self) -> None:
        mount = Mount("/cam", self.clips["usual"], clips.VTEST_FPS)
        self.sick = self._stack.enter_context(serving([mount], port=self.sick.port))


_CLIPS: dict[str, Callable[..., object]] = {"usual": clips.vtest, "frozen": clips.frozen, "small": clips.small}


def _unplugged(two: _Two) -> Callable[[], None]:
    two.sick.end()
    return two.replug


def _hung(two: _Two) -> Callable[[], None]:
    two.sick.hang(True)
    return lambda: two.sick.hang(False)


def _frozen(two: _Two) -> Callable[[], None]:
    two.sick.do("/cam", "switch", clip=two.clips["frozen"])
    return lambda: two.sick.do("/cam", "switch", clip=two.clips["usual"])


def _corrupt(two: _Two) -> Callable[[], None]:
    two.sick.do("/cam", "corrupt", count=round(SPAN_S * clips.VTEST_FPS / 2))
    return lambda: None


def _resized(two: _Two) -> Callable[[], None]:
    two.sick.do("/cam", "switch", clip=two.clips["small"])
    return lambda: two.sick.do("/cam", "switch", clip=two.clips["usual"])


FAULTS: dict[str, Callable[[_Two], Callable[[], None]]] = {
    "unplugged": _unplugged,
    "half-open TCP": _hung,
    "frozen picture": _frozen,
    "corrupt packets": _corrupt,
    "other resolution": _resized,
}


def measure(stage: Stage, bundle: Packed) -> list[Broken]:
    with ExitStack() as stack:
        two = _Two(stage, stack, bundle)
        return [_broken(two, name, begin) for name, begin in FAULTS.items()]


def reconnects(stage: Stage, bundle: Packed) -> Memory:
    """A camera that throws its callers out, again and again."""
    clip = str(clips.vtest(stage.work, most=50))
    with serving([Mount("/cam", clip, clips.VTEST_FPS)]) as server:
        camera = rtsp("door", f"{server.url}/cam", model=bundle.manifest.model, reconnect_s=0.5)
        with running(stage, [camera], bundle=bundle) as site:
            early = _usage_after(site, server, _RECONNECTS // 10)
            return Memory(f"{_RECONNECTS} reconnects", early, _usage_after(site, server, _RECONNECTS))


def hour(stage: Stage, bundle: Packed) -> Memory:
    """As many pictures as come in an hour, as fast as they can be decoded; every tenth is seen by the model."""
    clip = clips.stills_mp4(stage.work, moving_s=20.0, still_s=0.0, times=2)
    camera = {
        "name": "square", "url": str(clip), "pace": "every-frame", "loop": True, "stride": 10,
        "model": bundle.manifest.model, "motion": {"enabled": False},
    }  # fmt: skip
    with running(stage, [camera], bundle=bundle) as site:
        site.wait_for("square", _HOUR_PICTURES // 100)
        early = site.usage
        site.wait_for("square", _HOUR_PICTURES // 10)
        return Memory(f"{_HOUR_PICTURES} pictures", early, site.usage)


def _broken(two: _Two, name: str, begin: Callable[[_Two], Callable[[], None]]) -> Broken:
    usual = _rate(two.site, "well")
    mend = begin(two)
    during = _rate(two.site, "well")
    mend()
    began_s, seen = time.monotonic(), two.site.views()["sick"].frames.inferred
    while (view := two.site.views()["sick"]).frames.inferred <= seen or view.state != "live":
        time.sleep(0.05)
    recovery_s = time.monotonic() - began_s
    time.sleep(_USUAL_S)
    return Broken(name, during / usual, recovery_s)


def _rate(site: Site, camera: str) -> float:
    began, began_s = site.views()[camera].frames.inferred, time.monotonic()
    time.sleep(SPAN_S)
    return (site.views()[camera].frames.inferred - began) / (time.monotonic() - began_s)


def _usage_after(site: Site, server: RtspServer, attempts: int) -> Usage:
    while (view := site.views()["door"]).attempts < attempts:
        if view.state == "live":
            server.do("/cam", "kick")
        time.sleep(0.3)
    site.wait_for("door", view.frames.inferred + 5)
    return site.usage
