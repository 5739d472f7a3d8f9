"""What is said of cameras, on MQTT: events in their order, states retained, and a last will."""

from __future__ import annotations

import asyncio

import msgspec

from contracts.topics import CameraKind, camera_topic, cameras_topic
from edge_node.cameras.feed import Feed, Said
from runtime.links.mqtt.port import MqttPort, Will

EVENTS_WAITING = 10_000
"""While the broker is away so many events wait; the oldest give way. States do not wait: they are said again."""


def last_will(node: str) -> Will:
    """What the broker says of a node that is gone."""
    return cameras_topic(node), _status("offline"), True


class MqttOutlet:
    """`port` is its own, made with `last_will` and room for EVENTS_WAITING. It connects once there is something to say:
    a node without cameras is no client."""

    def __init__(self, node: str, feed: Feed, port: MqttPort) -> None:
        self._node = node
        self._feed = feed
        self._port = port
        self._gone: set[str] = set()
        self._starting: asyncio.Task[None] | None = None
        port.on_connect(self._assert_all)
        feed.listeners.append(self._hear)
        feed.forgetters.append(self._forget)

    @property
    def connected(self) -> bool:
        return self._port.connected

    @property
    def dropped(self) -> int:
        return self._port.dropped

    async def stop(self) -> None:
        if self._starting is None:
            return
        await self._starting
        self._port.publish(cameras_topic(self._node), _status("offline"), retain=True)
        await self._port.stop()

    def _hear(self, said: Said) -> None:
        if self._starting is None:
            self._starting = asyncio.create_task(self._port.start())
        topic = camera_topic(self._node, said.camera, said.kind)
        self._gone.discard(topic)
        self._port.publish(topic, said.body, retain=said.retained)

    def _forget(self, camera: str, kind: CameraKind) -> None:
        """An empty message takes a retained one away; where the broker is away, once it is back."""
        topic = camera_topic(self._node, camera, kind)
        self._gone.add(topic)
        self._port.publish(topic, b"", retain=True)

    def _assert_all(self) -> None:
        self._port.publish(cameras_topic(self._node), _status("online"), retain=True)
        for topic in self._gone:
            self._port.publish(topic, b"", retain=True)
        for said in self._feed.standing:
            self._port.publish(camera_topic(self._node, said.camera, said.kind), said.body, retain=True)


def _status(state: str) -> bytes:
    return msgspec.json.encode({"state": state})
