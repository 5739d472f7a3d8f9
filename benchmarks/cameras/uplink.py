"""The uplink is cut for a whole run, and comes back: what waited, and what was said of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import msgspec

from benchmarks.cameras import clips
from benchmarks.cameras.site import rtsp, running
from benchmarks.rtsp.server import Mount, serving
from benchmarks.stage import Stage
from contracts.camera_events import TrackEvent
from model_compiler.pack import Packed
from runtime.links.process.ports import free_ports

_SECONDS = 40.0
_BACK_S = 60.0


class Cut(NamedTuple):
    """`spooled` questions while the uplink was cut; of their late answers so many `amended` their events, and so many
    were said more than once."""

    spooled: int
    amended: int
    doubled: int


def measure(stage: Stage, bundle: Packed) -> Cut:
    (port,) = free_ports(1)
    clip = str(clips.vtest(stage.work))
    escalation = {"deadline_ms": 500.0}
    with serving([Mount("/square", clip, clips.VTEST_FPS)]) as server:
        camera = rtsp("square", f"{server.url}/square", model=bundle.manifest.model, escalation=escalation)
        with running(stage, [camera], bundle=bundle, cloud_urls=[f"http://127.0.0.1:{port}"]) as site:
            heard = site.hearing("track")
            time.sleep(_SECONDS)
            site.become([])
            time.sleep(5.0)
            with running(stage, [], bundle=bundle, port=port):
                give_up_s = time.monotonic() + _BACK_S
                told: Counter[tuple[str, float]] = Counter()
                while time.monotonic() < give_up_s:
                    time.sleep(2.0)
                    amended = amended_in(heard)
                    if amended == told and told:
                        break
                    told = amended
            spooled = site.spooled
    return Cut(spooled, len(told), sum(told.values()) - len(told))


def amended_in(heard: list[bytes]) -> Counter[tuple[str, float]]:
    events = (msgspec.json.decode(body, type=TrackEvent) for body in list(heard))
    return Counter((event.event, event.at_s) for event in events if event.phase == "amended")
