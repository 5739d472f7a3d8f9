"""What leaves the box, beside what uploading the encoded stream would have cost."""

from __future__ import annotations

import time
from typing import NamedTuple

from benchmarks.cameras import clips
from benchmarks.cameras.site import rtsp, running
from benchmarks.rtsp.server import Mount, serving
from benchmarks.stage import Stage
from model_compiler.pack import Packed

_SECONDS = 79.5
"""The whole clip, once."""


class OffSite(NamedTuple):
    """`raw_bytes` of the stream; `sent` and `sent_bytes` by purpose; `judged` by what became of doubts."""

    raw_bytes: int
    sent: dict[str, int]
    sent_bytes: dict[str, int]
    judged: dict[str, int]

    @property
    def share(self) -> float:
        return sum(self.sent_bytes.values()) / self.raw_bytes


def measure(stage: Stage, bundle: Packed) -> OffSite:
    """The square for as long as it lasts. The cloud is a second box with the same detector; a certificate of the
    bundle's own decides, a twentieth of all judgements is audited, and rules have snapshots that go out."""
    clip = clips.lean(stage.work)
    zone = [[0.4, 0.3], [1.0, 0.3], [1.0, 1.0], [0.4, 0.7]]
    watched = {
        "zones": [{"name": "road", "polygon": zone}],
        "rules": [{"name": "loiters", "zone": "road", "labels": ["person"], "for_s": 3.0, "cooldown_s": 10.0}],
        "snapshots": {"events": ["rule"]},
    }
    with (
        serving([Mount("/square", str(clip), clips.VTEST_FPS)]) as server,
        running(stage, [], bundle=bundle) as office,
        running(stage, [], bundle=bundle, cloud_urls=[office.url], audit_rate=0.05) as site,
    ):
        camera = rtsp("square", f"{server.url}/square", model=bundle.manifest.model, **watched)
        site.become([{**camera, "motion": {"enabled": True}}])
        site.wait_for("square", 1)
        time.sleep(_SECONDS)
        site.fetch_snapshots()
        view = site.views()["square"]
    return OffSite(view.received_bytes, view.sent, view.sent_bytes, view.judged)
