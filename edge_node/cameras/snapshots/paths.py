"""Where the snapshot of an event is to be had."""

from __future__ import annotations

from edge_node.cameras.snapshots.config import CameraSnapshotsConfig, Pictured


def snapshot_path(camera: str, event: str) -> str:
    return f"/v1/cameras/{camera}/events/{event}/snapshot"


def snapshot_of(config: CameraSnapshotsConfig, camera: str, kind: Pictured, event: str) -> str:
    """Its path on the node; "" where none is taken of events of that kind."""
    return snapshot_path(camera, event) if kind in config.events else ""
