"""Snapshots over the life of a node."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_node.cameras.config import CameraConfig
from edge_node.cameras.snapshots.album import Album
from edge_node.cameras.snapshots.config import SnapshotsConfig
from edge_node.cameras.snapshots.taking import Snapshots
from edge_node.cameras.sources.shot import Still

DAY_S = 86_400.0


async def test_a_picture_that_cannot_be_encoded_is_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = msgspec.convert({"name": "door", "url": "pattern:"}, CameraConfig)
    with ThreadPoolExecutor(1) as workers:
        snapshots = Snapshots(tmp_path, SnapshotsConfig(), workers, lambda camera, event, jpeg: None)
        await snapshots.open()
        snapshots.take(camera, "door-1-1", Still(np.zeros((0, 0, 3), np.uint8), 1.0, 1), None, None)
        assert await snapshots.get("door", "door-1-1") is None
        assert snapshots.lost == 1
        assert "a snapshot of door was lost" in caplog.text
        await snapshots.close()


async def test_the_old_go_where_nothing_new_comes(tmp_path: Path) -> None:
    kept = Album(tmp_path, SnapshotsConfig())
    kept.open()
    kept.put("door", "door-1-1", b"picture")
    later_s = 0.0
    with ThreadPoolExecutor(1) as workers:
        snapshots = Snapshots(
            tmp_path,
            SnapshotsConfig(keep_days=2),
            workers,
            lambda camera, event, jpeg: None,
            wall=lambda: time.time() + later_s,
            expire_s=0.02,
        )
        await snapshots.open()
        await asyncio.sleep(0.1)
        assert await snapshots.get("door", "door-1-1") == b"picture"
        later_s = 3 * DAY_S
        while snapshots.taken_bytes:  # noqa: ASYNC110 - the disk has no event
            await asyncio.sleep(0.01)
        assert await snapshots.get("door", "door-1-1") is None
        await snapshots.close()
