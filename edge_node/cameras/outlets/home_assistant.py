"""Cameras as devices of Home Assistant, by its MQTT discovery: each is described once, retained, on a topic of its own.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload. What these entities show are the retained
messages that are there anyway; nothing is said twice.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from contracts.camera_events import StateMessage
from contracts.topics import CameraKind, camera_topic, cameras_topic
from edge_node.cameras.feed import Feed, Said
from edge_node.cameras.scene.config import SceneConfig, ZoneConfig
from runtime.links.mqtt.port import MqttPort

_UNSAFE = re.compile(r"[^A-Za-z0-9_\-]")
Component = dict[str, Any]
SceneOf = Callable[[str], SceneConfig | None]
"""What a camera watches for; None where there is no such camera."""


class HomeAssistant:
    """`port` is that of the MQTT outlet, which starts and stops it, and hears what is said before this does."""

    def __init__(self, node: str, feed: Feed, port: MqttPort, scene_of: SceneOf, prefix: str) -> None:
        self._node = node
        self._port = port
        self._scene_of = scene_of
        self._prefix = prefix
        self._told: dict[str, dict[str, Component]] = {}
        self._gone: set[str] = set()
        self._stopping = False
        port.on_connect(self._assert_all)
        feed.listeners.append(self._hear)
        feed.forgetters.append(self._forget)

    def sweep(self) -> None:
        """Devices that an earlier life has described, of cameras that are there no more, are taken away."""
        mine = re.compile(rf"{re.escape(self._prefix)}/device/foothill_{re.escape(self._node)}_([^/_]+)/config")

        def heard(topic: str, payload: bytes) -> None:
            told = mine.fullmatch(topic)
            if told is not None and payload and not self._stopping and self._scene_of(told[1]) is None:
                self._gone.add(told[1])
                self._port.publish(topic, b"", retain=True)

        self._port.subscribe(f"{self._prefix}/device/+/config", heard)

    def leave_be(self) -> None:
        """From now on cameras go because the node stops: what is said of them stays."""
        self._stopping = True

    def _hear(self, said: Said) -> None:
        """A camera that was added or changed says so with its state."""
        scene = self._scene_of(said.camera) if isinstance(said.message, StateMessage) else None
        if scene is None:
            return
        components = dict(_components(self._node, said.camera, scene))
        told = self._told.get(said.camera, {})
        removed = {key: {"platform": old["platform"]} for key, old in told.items() if key not in components}
        if told != {**components, **removed}:
            self._told[said.camera] = {**components, **removed}
            self._gone.discard(said.camera)
            self._describe(said.camera)

    def _forget(self, camera: str, kind: CameraKind) -> None:
        """Also one that an earlier life of the node has described."""
        if kind == "state":
            self._told.pop(camera, None)
            self._gone.add(camera)
            self._port.publish(self._topic(camera), b"", retain=True)

    def _assert_all(self) -> None:
        for camera in self._gone:
            self._port.publish(self._topic(camera), b"", retain=True)
        for camera in self._told:
            self._describe(camera)

    def _describe(self, camera: str) -> None:
        described = _description(self._node, camera, self._told[camera])
        self._port.publish(self._topic(camera), msgspec.json.encode(described), retain=True)

    def _topic(self, camera: str) -> str:
        return f"{self._prefix}/device/{_id(self._node, camera)}/config"


def _description(node: str, camera: str, components: dict[str, Component]) -> Component:
    return {
        "device": {"identifiers": [_id(node, camera)], "name": camera, "manufacturer": "Foothill", "model": "camera"},
        "origin": {"name": "foothill"},
        "availability": [
            {
                "topic": cameras_topic(node),
                "value_template": "{{ value_json.state }}",
                "payload_available": "online",
                "payload_not_available": "offline",
            }
        ],
        "components": components,
        "qos": 1,
    }


def _components(node: str, camera: str, scene: SceneConfig) -> Iterator[tuple[str, Component]]:
    state, counts = camera_topic(node, camera, "state"), camera_topic(node, camera, "counts")
    yield _component(
        f"{_id(node, camera)}_live",
        platform="binary_sensor",
        name="Live",
        device_class="connectivity",
        entity_category="diagnostic",
        state_topic=state,
        value_template="{{ 'ON' if value_json.state in ('live', 'dark') else 'OFF' }}",
        json_attributes_topic=state,
    )
    for zone in scene.zones:
        for name, key, template in _zone_counts(zone, scene):
            yield _component(
                f"{_id(node, camera)}_zone_{key}",
                platform="sensor",
                name=name,
                state_class="measurement",
                state_topic=counts,
                value_template=template,
            )
    for line in scene.lines:
        for way in ("in", "out"):
            yield _component(
                f"{_id(node, camera)}_line_{line.name}_{way}",
                platform="sensor",
                name=f"{line.name} {way}",
                state_class="total_increasing",
                state_topic=counts,
                value_template=f"{{{{ value_json.lines[{_quoted(line.name)}][{_quoted(way)}] }}}}",
            )


def _zone_counts(zone: ZoneConfig, scene: SceneConfig) -> Iterator[tuple[str, str, str]]:
    """Name, key and template: of all that is in it, and of each label that its own table or a rule names."""
    now = f"value_json.zones[{_quoted(zone.name)}]"
    yield zone.name, zone.name, f"{{{{ {now}.values() | sum }}}}"
    of_rules = (label for rule in scene.rules if rule.zone == zone.name for label in rule.labels)
    for label in dict.fromkeys((*zone.labels, *of_rules)):
        yield f"{zone.name} {label}", f"{zone.name}_{_safe(label)}", f"{{{{ {now}.get({_quoted(label)}, 0) }}}}"


def _component(key: str, **told: str) -> tuple[str, Component]:
    return key, {"unique_id": key, **told}


def _id(node: str, camera: str) -> str:
    """Names have no underscores: two cameras never have one id."""
    return f"foothill_{node}_{camera}"


def _safe(label: str) -> str:
    """Labels may hold anything; two never become one."""
    safe = _UNSAFE.sub("_", label)
    return safe if safe == label else f"{safe}_{zlib.crc32(label.encode()):08x}"


def _quoted(text: str) -> str:
    """As a template has it, whatever it holds."""
    return json.dumps(text)
