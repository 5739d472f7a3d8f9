"""What the motion gate saves where nothing moves, and whether it loses anybody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.cameras import clips
from benchmarks.cameras.site import running
from benchmarks.stage import Stage
from contracts.camera_events import TrackEvent
from contracts.predictions import OVERLAP, overlap
from model_compiler.pack import Packed

MOVING_S, STILL_S, TIMES = 20.0, 30.0, 2
LONG_S = 1.0
"""Who is there for less may come and go between two pictures."""


class Gated(NamedTuple):
    """`saved` of the pictures in still stretches. `tracks` that the ungated run found, and how many of them the gated
    one did not."""

    saved: float
    tracks: int
    lost: int


class _Run(NamedTuple):
    stills: int
    pictures: int
    tracks: dict[str, list[TrackEvent]]


def measure(stage: Stage, bundle: Packed) -> Gated:
    full = clips.stills_mp4(stage.work, moving_s=MOVING_S, still_s=STILL_S, times=TIMES)
    moving = clips.stills_mp4(stage.work, moving_s=MOVING_S, still_s=0.0, times=TIMES)
    gated, ungated = (_run(stage, bundle, full, enabled=enabled) for enabled in (True, False))
    while_moving = _run(stage, bundle, moving, enabled=True)
    still = STILL_S * TIMES * clips.VTEST_FPS
    long = [told for told in ungated.tracks.values() if told[-1].at_s - told[0].at_s >= LONG_S]
    lost = [told for told in long if not any(_same(told, other) for other in gated.tracks.values())]
    return Gated((gated.stills - while_moving.stills) / still, len(long), len(lost))


def _run(stage: Stage, bundle: Packed, clip: Path, *, enabled: bool) -> _Run:
    """Every picture of a file, as fast as it goes."""
    camera = {
        "name": "square",
        "url": str(clip),
        "pace": "every-frame",
        "model": bundle.manifest.model,
        "update_every_s": 0.0,
        "motion": {"enabled": enabled},
    }
    with running(stage, [], bundle=bundle) as site:
        heard = site.hearing("track")
        site.become([camera])
        while not (view := site.views().get("square")) or view.state != "ended":
            time.sleep(0.5)
        site.become([])
        time.sleep(3.0)
        messages = [msgspec.json.decode(body, type=TrackEvent) for body in heard]
    tracks: dict[str, list[TrackEvent]] = {}
    for message in messages:
        tracks.setdefault(message.event, []).append(message)
    return _Run(
        view.frames.gated, view.frames.decoded, {name: _from_zero(told, messages) for name, told in tracks.items()}
    )


def _from_zero(told: list[TrackEvent], all_told: list[TrackEvent]) -> list[TrackEvent]:
    """Times since the first thing that was said: runs begin at different times."""
    return [msgspec.structs.replace(each, at_s=round(each.at_s - all_told[0].at_s, 2)) for each in told]


def _same(one: list[TrackEvent], other: list[TrackEvent]) -> bool:
    """Whether both were in one place at one time, somewhen."""
    boxes = {each.at_s: each.box for each in other}
    near = (boxes.get(each.at_s) for each in one)
    return any(box is not None and overlap(each.box, box) >= OVERLAP for each, box in zip(one, near, strict=True))
