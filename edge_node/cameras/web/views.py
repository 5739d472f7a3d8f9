"""What the API says of a camera."""

from __future__ import annotations

import msgspec

from edge_node.cameras.camera import Camera


class FramesView(msgspec.Struct, frozen=True):
    """Pictures since the camera was added, and what became of them."""

    decoded: int
    corrupt: int
    skipped: int
    given_way: int
    gated: int
    inferred: int
    dropped: dict[str, int]


class CameraView(msgspec.Struct, frozen=True):
    """`since_at_s` is unix time; latencies from capture to result, in ms; `url` names no password. `judged` counts
    doubts by what became of them, `sent` and `sent_bytes` pictures that left the box, by purpose; `received_bytes` are
    those of the stream."""

    name: str
    state: str
    since_at_s: float
    why: str
    url: str
    codec: str
    hardware: str
    width: int
    height: int
    fps: float
    model: str
    priority: str
    frames: FramesView
    judged: dict[str, int]
    sent: dict[str, int]
    sent_bytes: dict[str, int]
    received_bytes: int
    latency_p50_ms: float
    latency_p95_ms: float
    attempts: int
    managed: str


def view(camera: Camera, managed: str) -> CameraView:
    """`managed` says who may change it: `file` or `api`."""
    seen, figures = camera.reader.seen, camera.figures
    return CameraView(
        name=camera.name,
        state=camera.state.state,
        since_at_s=camera.state.since_s,
        why=camera.state.why,
        url=camera.shown_url,
        codec=camera.facts.codec,
        hardware=camera.facts.hardware,
        width=camera.size.width,
        height=camera.size.height,
        fps=round(camera.fps, 2),
        model=camera.config.model,
        priority=camera.config.priority,
        frames=FramesView(
            decoded=seen.decoded,
            corrupt=seen.corrupt,
            skipped=seen.skipped,
            given_way=figures.given_way,
            gated=figures.gated["still"],
            inferred=figures.inferred,
            dropped=dict(figures.dropped),
        ),
        judged=dict(figures.judged),
        sent=dict(figures.sent),
        sent_bytes=dict(figures.sent_bytes),
        received_bytes=seen.received_bytes,
        latency_p50_ms=round(figures.latency_ms(0.50), 1),
        latency_p95_ms=round(figures.latency_ms(0.95), 1),
        attempts=seen.attempts,
        managed=managed,
    )
