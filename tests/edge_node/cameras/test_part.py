"""The cameras of a node together: what of one that was changed, or is gone, is not said."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_node.cameras.config import CameraConfig
from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort
from tests.edge_node.cameras.escalation.street import Street


async def until(true: Any) -> None:
    async def wait() -> None:
        while not true():  # noqa: ASYNC110 - figures have no event
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), 20)


@pytest.mark.integration
@pytest.mark.parametrize("change", ["removed", "mqtt off", "black"])
async def test_a_picture_that_was_on_its_way_when_its_camera_changed_is_not_published(
    tmp_path: Path, change: str
) -> None:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker"), program="iotcore"))
    await broker.start()
    street = Street(tmp_path / "node", broker_url=broker.url)
    street.directory.mkdir()
    await street.open()
    heard: list[bytes] = []
    reader = MqttPort(broker.url, "reader")
    reader.subscribe("foothill/v1/cameras/shop/door/snapshot", lambda topic, payload: heard.append(payload))
    statuses: list[str] = []
    reader.subscribe("foothill/v1/cameras/shop/status", lambda topic, payload: statuses.append(payload.decode()))
    await reader.start()
    await reader.wait_connected(15)
    keys = {"snapshots": {"mqtt": True}}
    await street.part.cameras.put(camera("door", **keys))
    door = street.part.cameras.there["door"]
    await until(lambda: not door.live.is_empty and "online" in "".join(statuses))
    shown = door.live._shown
    assert shown is not None
    street.part._snapshots.take(door.config, "door-1-1", shown.shot, None, None)
    await until(lambda: bool(heard and heard[-1]))
    going = threading.Event()
    for _ in range(16):
        street.part._workers.submit(going.wait)
    street.part._snapshots.take(door.config, "door-1-2", shown.shot, None, None)
    if change == "removed":
        await street.part.cameras.remove("door")
    else:
        others = {"snapshots": {}} if change == "mqtt off" else {"privacy": {"black": [[[0, 0], [1, 0], [1, 1]]]}}
        await street.part.cameras.put(camera("door", **{**keys, **others}))
    going.set()
    await until(lambda: not street.part._snapshots._tasks and heard[-1] == b"")
    await asyncio.sleep(0.2)
    assert heard[-1] == b""
    record = await street.part._snapshots.get("door", "door-1-2")
    assert record is not None
    await reader.stop()
    await street.close()
    await broker.stop()


def camera(name: str, **keys: Any) -> CameraConfig:
    return msgspec.convert({"name": name, "url": "pattern:?fps=20", **keys}, CameraConfig)
