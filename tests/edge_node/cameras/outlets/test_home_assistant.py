"""Cameras as Home Assistant finds them, over real brokers; its templates are filled in by its own engine, Jinja."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.camera_events import CountsMessage, StateMessage
from edge_node.cameras.feed import Feed
from edge_node.cameras.outlets.home_assistant import HomeAssistant
from edge_node.cameras.outlets.home_assistant_config import HomeAssistantConfig
from edge_node.cameras.outlets.journal import Journal
from edge_node.cameras.outlets.mqtt import MqttOutlet, last_will
from edge_node.cameras.scene.config import SceneConfig
from fleet.broker import Broker
from runtime.links.mqtt.port import MqttPort
from tests.edge_node.cameras.outlets.test_mqtt import Reader, broker, feed, journal, reader  # noqa: F401 - fixtures
from tests.runtime.links.mqtt.relay import Relay

jinja2 = pytest.importorskip("jinja2")
pytestmark = pytest.mark.integration

HALF = [[0, 0], [0.5, 0], [0.5, 1]]
SCENE: dict[str, Any] = {
    "zones": [{"name": "left", "polygon": HALF, "labels": ["person"]}, {"name": "gate", "polygon": HALF}],
    "lines": [{"name": "door", "start": [0, 0.5], "end": [1, 0.5]}],
    "rules": [{"name": "parked", "zone": "gate", "labels": ['"big" }} car\\']}],
}
TOPIC = "device/foothill_fra_yard/config"


def scene(**tables: Any) -> SceneConfig:
    return msgspec.convert(tables, SceneConfig)


class Home:
    """A node's outlet with discovery, and what Home Assistant keeps of its topics. `scenes` are those of cameras."""

    def __init__(self, url: str, feed: Feed, journal: Path) -> None:  # noqa: F811
        self.journal = journal
        self.scenes = {"yard": scene(**SCENE)}
        self.kept: dict[str, bytes] = {}
        self.listener = MqttPort(url, "home", longest_pause_s=0.3)
        self.listener.subscribe("homeassistant/#", self._hear)
        self.feed = feed

    def live_at(self, url: str) -> None:
        self.port = MqttPort(url, "cameras-fra", will=last_will("fra"), longest_pause_s=0.3)
        self.outlet = MqttOutlet("fra", self.feed, self.port, Journal(self.journal))
        self.described = HomeAssistant("fra", self.feed, self.port, self.scenes.get, "homeassistant")

    def says(self, state: Any = "live", camera: str = "yard") -> None:
        self.feed.say(StateMessage, camera, 1.0, state=state, since_at_s=1.0)

    @property
    def description(self) -> dict[str, Any]:
        return dict(json.loads(self.kept.get(TOPIC) or b"{}"))

    @property
    def names(self) -> set[str]:
        return {told["name"] for told in self.description["components"].values() if "name" in told}

    def _hear(self, topic: str, payload: bytes) -> None:
        self.kept[topic.removeprefix("homeassistant/")] = payload


@pytest.fixture
async def home(broker: Broker, feed: Feed, journal: Path) -> AsyncIterator[Home]:  # noqa: F811
    home = Home(broker.url, feed, journal)
    await home.listener.start()
    await home.listener.wait_connected(15)
    yield home
    await home.outlet.stop()
    await home.listener.stop()


def shown(template: str, value: bytes) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    return str(environment.from_string(template).render(value_json=json.loads(value)))


async def test_a_camera_is_a_device_with_its_state_and_counts(broker: Broker, reader: Reader, home: Home) -> None:  # noqa: F811
    home.live_at(broker.url)
    home.says("starting")
    home.says("live")
    counts = {"left": {"person": 2, "dog": 1}, "gate": {'"big" }} car\\': 4}}
    home.feed.say(CountsMessage, "yard", 1.0, zones=counts, lines={"door": {"in": 3, "out": 1}})
    await reader.until(lambda: home.kept.get(TOPIC) and reader.heard["yard/counts"])
    await reader.until(lambda: reader.last("yard/state") == "live" and reader.last("status") == "online")
    told = home.description
    assert told["device"] == {
        "identifiers": ["foothill_fra_yard"], "name": "yard", "manufacturer": "Foothill", "model": "camera",
    }  # fmt: skip
    assert told["origin"]["name"] == "foothill"
    topic = "foothill/v1/cameras/fra/"
    seen = {}
    for key, component in told["components"].items():
        assert component["unique_id"] == key
        heard = reader.heard[component["state_topic"].removeprefix(topic)][-1]
        seen[component["name"]] = (component["platform"], shown(component["value_template"], heard))
    assert seen == {
        "Live": ("binary_sensor", "ON"),
        "left": ("sensor", "3"),
        "left person": ("sensor", "2"),
        "gate": ("sensor", "4"),
        'gate "big" }} car\\': ("sensor", "4"),
        "door in": ("sensor", "3"),
        "door out": ("sensor", "1"),
    }
    (available,) = told["availability"]
    assert shown(available["value_template"], reader.heard[available["topic"].removeprefix(topic)][-1]) == "online"
    (live,) = (component for component in told["components"].values() if component["name"] == "Live")
    assert shown(live["value_template"], b'{"state": "reconnecting"}') == "OFF"
    person = next(component for component in told["components"].values() if component["name"] == "left person")
    assert shown(person["value_template"], b'{"zones": {"left": {}}}') == "0"


async def test_a_camera_that_changes_is_described_anew_and_one_that_goes_leaves_nothing(
    broker: Broker,  # noqa: F811
    reader: Reader,  # noqa: F811
    home: Home,
) -> None:
    home.live_at(broker.url)
    home.says()
    await reader.until(lambda: home.kept.get(TOPIC))
    before = set(home.description["components"])
    home.scenes["yard"] = scene(zones=SCENE["zones"][:1])
    home.says()
    await reader.until(lambda: home.names == {"Live", "left", "left person"})
    removed = {key: told for key, told in home.description["components"].items() if "name" not in told}
    assert set(home.description["components"]) == before
    assert list(removed.values()) == [{"platform": "sensor"}] * 4
    home.feed.forget("yard")
    await reader.until(lambda: home.kept[TOPIC] == b"")
    home.says(camera="nobody")
    home.says()
    await reader.until(lambda: home.description)
    assert home.kept.keys() == {TOPIC}
    assert len(home.description["components"]) == 3


async def test_a_camera_that_goes_while_the_broker_is_away_is_gone_once_it_is_back(
    broker: Broker,  # noqa: F811
    reader: Reader,  # noqa: F811
    home: Home,
) -> None:
    relay = Relay(int(broker.url.rpartition(":")[2]))
    home.live_at(await relay.start())
    home.says()
    home.says(camera="gate")
    home.scenes["gate"] = scene()
    home.says("dark", camera="gate")
    await reader.until(lambda: len(home.kept) == 2)
    relay.cut()
    await reader.until(lambda: not home.outlet.connected)
    home.feed.forget("yard")
    relay.mend()
    await reader.until(lambda: home.kept[TOPIC] == b"")
    assert home.kept["device/foothill_fra_gate/config"] != b""
    await relay.stop()


async def test_devices_of_cameras_that_went_while_the_node_was_down_go(
    broker: Broker,  # noqa: F811
    reader: Reader,  # noqa: F811
    home: Home,
) -> None:
    others = ["device/foothill_fra-2_yard/config", "device/foothill_fra_yard_2/config", "device/0x0017/config"]
    for topic in others:
        home.listener.publish(f"homeassistant/{topic}", b"{}", retain=True)
    home.live_at(broker.url)
    home.says()
    home.scenes["gate"] = scene()
    home.says(camera="gate")
    await reader.until(lambda: len(home.kept) == 5)
    home.described.leave_be()
    await home.outlet.stop()
    del home.scenes["yard"]
    home.feed = Feed("fra", 2)
    home.live_at(broker.url)
    home.described.sweep()
    home.says(camera="gate")
    await reader.until(lambda: home.kept[TOPIC] == b"")
    assert all(home.kept[topic] for topic in (*others, "device/foothill_fra_gate/config"))


@pytest.mark.parametrize("prefix", ["", "/", "a/", "home assistant", "home/#", "+"])
def test_a_prefix_that_is_no_topic_is_refused(prefix: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="prefix"):
        msgspec.convert({"prefix": prefix}, HomeAssistantConfig)
