"""What a site's broker hears of cameras, through outages too."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.camera_events import CountsMessage, PictureEvent, StateMessage
from contracts.messages import MAX_MESSAGE_BYTES
from edge_node.cameras.feed import Feed
from edge_node.cameras.outlets.journal import Journal
from edge_node.cameras.outlets.mqtt import EVENTS_WAITING, MqttOutlet, last_will
from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort
from tests.runtime.links.mqtt.relay import Relay

pytestmark = pytest.mark.integration

MISSING = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") is None
BROKERS = [
    pytest.param("mosquitto", marks=pytest.mark.skipif(MISSING, reason="mosquitto is not installed")),
    "iotcore",
]


class Reader:
    """Whoever listens to one node's cameras: all messages by topic, the last levels of it."""

    def __init__(self, url: str) -> None:
        self.heard: defaultdict[str, list[bytes]] = defaultdict(list)
        self.port = MqttPort(url, "reader", longest_pause_s=0.3)
        self.port.subscribe("foothill/v1/cameras/fra/#", self._hear)

    def events(self) -> list[int]:
        """Without what was heard before: a cut may come between a message and the broker's word that it has it."""
        told: list[int] = [0]
        for body in self.heard["door/events"]:
            sequence = json.loads(body)["sequence"]
            if sequence > told[-1]:
                told.append(sequence)
        return told[1:]

    def last(self, topic: str) -> str:
        body = self.heard[topic][-1] if self.heard[topic] else b""
        return str(json.loads(body)["state"]) if body else ""

    async def until(self, true: object) -> None:
        async def wait() -> None:
            while not true():  # type: ignore[operator]  # noqa: ASYNC110
                await asyncio.sleep(0.02)

        await asyncio.wait_for(wait(), 30)

    def _hear(self, topic: str, payload: bytes) -> None:
        self.heard[topic.split("/", 4)[4]].append(payload)


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker"), program=request.param))
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def reader(broker: Broker) -> AsyncIterator[Reader]:
    reader = Reader(broker.url)
    await reader.port.start()
    await reader.port.wait_connected(15)
    yield reader
    await reader.port.stop()


@pytest.fixture
async def feed() -> Feed:
    return Feed("fra", 1)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "outlets" / "mqtt.db"


async def outlet_of(url: str, feed: Feed, journal: Path, most: int = EVENTS_WAITING) -> MqttOutlet:
    """Started."""
    port = MqttPort(url, "cameras-fra", will=last_will("fra"), queue_limit=most, longest_pause_s=0.3)
    outlet = MqttOutlet("fra", feed, port, Journal(journal))
    await outlet.start()
    return outlet


def say(feed: Feed, count: int) -> None:
    for number in range(count):
        feed.say(PictureEvent, "door", float(number), event=f"e{number}", phase="start", label="7")


def say_state(feed: Feed, state: str) -> None:
    feed.say(StateMessage, "door", 1.0, state=state, since_at_s=1.0)


async def test_events_come_in_order_and_states_meet_who_comes_later(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    outlet = await outlet_of(broker.url, feed, journal)
    say_state(feed, "starting")
    say(feed, 200)
    say_state(feed, "live")
    feed.say(CountsMessage, "door", 1.0, zones={"a": {"person": 2}})
    await reader.until(lambda: len(reader.events()) == 200 and reader.heard["door/counts"])
    assert reader.events() == list(range(2, 202))
    later = Reader(broker.url)
    await later.port.start()
    await later.until(lambda: later.last("door/state") == "live" and later.heard["door/counts"])
    assert later.last("status") == "online"
    assert later.events() == []
    await later.port.stop()
    await outlet.stop()
    await reader.until(lambda: reader.last("status") == "offline")


async def test_what_is_said_while_the_broker_is_away_comes_once_it_is_back_and_only_once(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    relay = Relay(int(broker.url.rpartition(":")[2]))
    outlet = await outlet_of(await relay.start(), feed, journal)
    say_state(feed, "starting")
    for round_ in range(3):
        await reader.until(lambda: reader.last("status") == "online")
        relay.cut()
        await reader.until(lambda: not outlet.connected)
        say(feed, 500)
        say_state(feed, "reconnecting")
        await reader.until(lambda: reader.last("status") == "offline")
        relay.mend()
        await reader.until(lambda: len(reader.events()) == 500 * (round_ + 1))  # noqa: B023
        await reader.until(lambda: reader.last("door/state") == "reconnecting")
    assert reader.events() == [number for number in range(2, 1505) if number % 501 != 1]
    await outlet.stop()
    await relay.stop()


async def test_a_node_that_dies_is_told_and_a_camera_that_was_taken_away_leaves_nothing(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    outlet = await outlet_of(broker.url, feed, journal)
    say_state(feed, "live")
    await reader.until(lambda: reader.last("door/state") == "live")
    feed.forget("door")
    await reader.until(lambda: reader.last("door/state") == "")
    later = Reader(broker.url)
    await later.port.start()
    await later.until(lambda: later.last("status") == "online")
    assert b"".join(later.heard["door/state"]) == b""
    await later.port.stop()
    await outlet._port.kill()
    await reader.until(lambda: reader.last("status") == "offline")


async def test_the_newest_snapshot_stands_until_its_camera_goes(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    outlet = await outlet_of(broker.url, feed, journal)
    assert not outlet.picture("door", b"too early")
    say_state(feed, "live")
    await reader.until(lambda: outlet.connected)
    assert not outlet.picture("door", bytes(MAX_MESSAGE_BYTES + 1))
    assert outlet.picture("door", b"\xff\xd8first")
    assert outlet.picture("door", b"\xff\xd8second")
    await reader.until(lambda: len(reader.heard["door/snapshot"]) == 2)
    later = Reader(broker.url)
    await later.port.start()
    await later.until(lambda: later.heard["door/snapshot"] == [b"\xff\xd8second"])
    feed.forget("door")
    await later.until(lambda: later.heard["door/snapshot"][-1] == b"")
    await later.port.stop()
    await outlet.stop()


async def test_events_that_the_broker_never_got_are_told_by_the_nodes_next_life(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    relay = Relay(int(broker.url.rpartition(":")[2]))
    url = await relay.start()
    outlet = await outlet_of(url, feed, journal)
    say(feed, 10)
    await reader.until(lambda: len(reader.events()) == 10)
    relay.cut()
    await reader.until(lambda: not outlet.connected)
    say(feed, 500)
    await outlet.stop()
    relay.mend()
    later = Feed("fra", 2)
    outlet = await outlet_of(url, later, journal)
    say(later, 20)
    await reader.until(lambda: len(reader.heard["door/events"]) == 530)
    told = [json.loads(body) for body in reader.heard["door/events"]]
    assert [(event["epoch"], event["sequence"]) for event in told] == [
        *((1, number) for number in range(1, 511)),
        *((2, number) for number in range(1, 21)),
    ]
    await outlet.stop()
    await relay.stop()
    again = Journal(journal)
    assert await again.open() == []
    await again.close()


async def test_events_that_give_way_do_not_come_back_in_the_next_life(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    relay = Relay(int(broker.url.rpartition(":")[2]))
    relay.cut()
    outlet = await outlet_of(await relay.start(), feed, journal, most=100)
    say(feed, 130)
    await asyncio.sleep(0.3)
    say(feed, 70)
    assert outlet.dropped == 100
    await outlet.stop()
    outlet = await outlet_of(broker.url, Feed("fra", 2), journal)
    await reader.until(lambda: len(reader.events()) == 100)
    assert reader.events() == list(range(101, 201))
    await outlet.stop()
    await relay.stop()


async def test_what_the_broker_has_of_cameras_that_went_while_the_node_was_down_goes(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    outlet = await outlet_of(broker.url, feed, journal)
    for camera in ("door", "yard"):
        feed.say(StateMessage, camera, 1.0, state="live", since_at_s=1.0)
        feed.say(CountsMessage, camera, 1.0, zones={"a": {"person": 2}})
    await reader.until(lambda: outlet.connected)
    assert outlet.picture("yard", b"\xff\xd8")
    await reader.until(lambda: reader.heard["yard/snapshot"] and reader.heard["yard/counts"])
    outlet.leave_be()
    await outlet.stop()
    later = Feed("fra", 2)
    outlet = await outlet_of(broker.url, later, journal)
    outlet.sweep({"door"}.__contains__)
    await reader.until(lambda: all(reader.heard[f"yard/{kind}"][-1] == b"" for kind in ("state", "counts", "snapshot")))
    later.say(StateMessage, "door", 1.0, state="dark", since_at_s=1.0)
    await reader.until(lambda: reader.last("door/state") == "dark")
    assert b"" not in reader.heard["door/state"]
    assert reader.heard["door/counts"][-1] != b""
    outlet.leave_be()
    await outlet.stop()
    again = Reader(broker.url)
    await again.port.start()
    await again.until(lambda: again.last("door/state") and again.heard["door/counts"] and again.last("status"))
    assert {topic.partition("/")[0] for topic, told in again.heard.items() if any(told)} == {"door", "status"}
    await again.port.stop()


async def test_what_a_node_says_at_its_end_stays(broker: Broker, reader: Reader, feed: Feed, journal: Path) -> None:
    outlet, there = await outlet_of(broker.url, feed, journal), {"door"}
    outlet.sweep(there.__contains__)
    say_state(feed, "live")
    await reader.until(lambda: reader.last("door/state") == "live")
    outlet.leave_be()
    say_state(feed, "stopped")
    there.clear()
    await reader.until(lambda: reader.last("door/state") == "stopped")
    await outlet.stop()
    await reader.until(lambda: reader.last("status") == "offline")
    assert reader.last("door/state") == "stopped"


async def test_a_node_whose_last_camera_went_while_it_was_down_still_tidies_up(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    outlet = await outlet_of(broker.url, feed, journal)
    say_state(feed, "live")
    await reader.until(lambda: reader.last("door/state") == "live")
    await reader.until(journal.exists)
    await outlet.stop()
    outlet = await outlet_of(broker.url, Feed("fra", 2), journal)
    outlet.sweep(lambda camera: False)
    await reader.until(lambda: reader.last("door/state") == "")
    await outlet.stop()


async def test_a_node_that_never_had_a_camera_is_no_client(
    broker: Broker, reader: Reader, feed: Feed, journal: Path
) -> None:
    outlet = await outlet_of(broker.url, feed, journal)
    outlet.sweep(lambda camera: False)
    await asyncio.sleep(0.5)
    await outlet.stop()
    assert reader.heard["status"] == []
    later = Journal(journal)
    assert await later.open() is None
    await later.close()
