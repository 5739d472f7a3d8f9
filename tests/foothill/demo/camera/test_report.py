"""What a person reads at the end of the demo."""

from __future__ import annotations

import io
from typing import Any

import msgspec
from rich.console import Console

from contracts.camera_events import CrossingEvent, PictureEvent, TrackEvent, Verdict
from edge_node.cameras.web.views import CameraView, FramesView
from foothill.demo.camera.heard import Heard
from foothill.demo.camera.report import fewer, print_report

FRAMES = FramesView(decoded=900, corrupt=0, skipped=0, given_way=7, gated=100, inferred=790, dropped={"late": 3})
VIEW = CameraView(
    name="crossing", state="live", since_at_s=0.0, why="", url="", codec="h264", hardware="", width=640, height=272,
    fps=25.0, model="street", priority="normal", frames=FRAMES, judged={"kept": 9, "escalated": 3},
    sent={"escalate": 3}, sent_bytes={"escalate": 20_000}, received_bytes=2_000_000, latency_p50_ms=20.4,
    latency_p95_ms=31.0, attempts=1, managed="file",
)  # fmt: skip
COMMON: dict[str, Any] = {"node": "box", "camera": "crossing", "epoch": 1, "sequence": 1, "at_s": 1.0}


def heard() -> Heard:
    heard = Heard()
    track = TrackEvent(
        **COMMON, event="a", phase="start", track=1, label="person", score=0.7, box=(0, 0, 1, 1), size=(2, 2),
        began_at_s=1.0,
    )  # fmt: skip
    heard.note(track)
    heard.note(msgspec.structs.replace(track, phase="update"))
    heard.note(msgspec.structs.replace(track, phase="amended", label="none", verdict=Verdict(edge_label="person")))
    heard.note(CrossingEvent(**COMMON, event="a", line="middle", direction="out", track=1, label="person"))
    heard.note(PictureEvent(**COMMON, event="b", phase="amended", label="car", verdict=Verdict(edge_label="none")))
    heard.note(PictureEvent(**COMMON, event="c", phase="amended", label="none"))
    return heard


def shown(view: CameraView) -> str:
    console = Console(file=io.StringIO(), width=100)
    print_report(view, heard(), 36.0, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_report_says_what_was_seen_and_what_left() -> None:
    told = shown(VIEW)
    assert all(len(line) <= 80 for line in told.splitlines())
    for figure in (
        "900 pictures in 36 s", "1 things followed", "6 events", "99.0% fewer", "20.0 kB for 2.0 MB", "790; 100 showed",
        "10 gave way", "p50 20 ms, p95 31 ms", "person 1", "0 in, 1 out", "escalate 3, 20.0 kB", "kept 9, escalated 3",
        "no person: nothing 1", "unnoticed: car 1", "also nothing 1",
    ):  # fmt: skip
        assert figure in " ".join(told.replace("│", " ").split()), figure


def test_a_camera_that_gave_nothing_saved_nothing() -> None:
    assert fewer(msgspec.structs.replace(VIEW, received_bytes=0)) == 0.0
    assert "none, 0 B" in shown(msgspec.structs.replace(VIEW, sent={}, sent_bytes={}))
