"""The broker goes away under load: the router goes on with what it knows, and listens again when it is back."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec
import pytest

from benchmarks.fault_story import Fault, tell
from benchmarks.faulty_nodes import FaultyNode
from contracts import topics
from contracts.messages import Status, encode
from fleet.broker import Broker, BrokerConfig
from router.config import Config
from router.wiring import wired
from runtime.links.http.serve import start_app
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from tests.router.faults.conftest import RATE, SHORT, asking
from tests.router.faults.test_nodes import check
from tests.router.rig import DUBLIN, HOP_KEY
from tests.router.test_app import Client
from tests.router.test_discovery import FLEET_KEY
from tests.router.test_selection import identity, reported
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

pytestmark = pytest.mark.integration

HEARD_S = 3.0
"""A router pauses 1.5 s at most between two attempts to connect."""
Program = Literal["mosquitto", "iotcore"]


class House:
    """A broker of one kind, and a router that knows its nodes from there alone."""

    def __init__(self, broker: Broker, says: MqttPort, client: Client) -> None:
        self.broker = broker
        self.says = says
        self.client = client

    def introduce(self, node: FaultyNode) -> None:
        told = msgspec.structs.replace(identity(node.name), url=node.url)
        self._say(node.name, "identity", encode(signatures.sign(told, FLEET_KEY)))
        self._say(node.name, "reported", encode(reported(node.name, "digits")))
        self.set_state(node, "online")

    def set_state(self, node: FaultyNode, state: Literal["online", "draining"]) -> None:
        self._say(node.name, "status", encode(Status(node.name, 1, state)))

    async def until_online(self, count: int) -> None:
        while await self._online() != count:  # noqa: ASYNC110 - the router has no event for that
            await asyncio.sleep(0.02)

    async def _online(self) -> int:
        return int((await self.client.json("GET", "/healthz"))["nodes"].get("online", 0))

    def _say(self, name: str, kind: str, payload: bytes) -> None:
        self.says.publish(topics.node_topic(name, kind), payload, retain=True)


@pytest.fixture(params=["mosquitto", "iotcore"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    program: Program = request.param
    if program == "mosquitto" and shutil.which("mosquitto", path="/usr/bin:/usr/sbin:/usr/local/sbin") is None:
        pytest.skip("mosquitto is not installed")
    repository = TufRepository(tmp_path / "repository")
    repository.set_keys({signatures.public_key(FLEET_KEY): ["identity", "desired", "certificate"]})
    repository.publish()
    fleet = FleetServer(repository.directory)
    (tmp_path / "hop.key").write_text(HOP_KEY.hex())
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker"), program=program))
    await broker.start()
    says = MqttPort(broker.url, "says", longest_pause_s=0.2)
    async with AsyncExitStack() as closing:
        config = Config(
            broker_url=broker.url,
            fleet_url=await fleet.start(),
            cloud_urls=(),
            state_dir=str(tmp_path / "router"),
            hop_key_file=str(tmp_path / "hop.key"),
            place=DUBLIN,
        )
        app = await closing.enter_async_context(wired(config, rng=random.Random(1)))
        runner, url = await start_app(app, "127.0.0.1", 0, name="router", drain_s=0.1)
        closing.push_async_callback(runner.cleanup)
        session = await closing.enter_async_context(aiohttp.ClientSession())
        await says.start()
        closing.push_async_callback(says.stop)
        await says.wait_connected(10)
        yield House(broker, says, Client(url, session))
    await broker.stop()
    await fleet.stop()


async def test_a_broker_that_is_gone_costs_nothing_and_is_heard_again(house: House, nodes: list[FaultyNode]) -> None:
    for node in nodes:
        house.introduce(node)
    await asyncio.wait_for(house.until_online(len(nodes)), 20)
    fault = Fault(house.broker.stop, house.broker.start)
    story = await tell(asking(house.client), nodes, nodes[0], fault, RATE, SHORT)
    check(story)
    assert {node.name for node in nodes if node.asked_s}, "it knew whom to ask"
    await house.says.wait_connected(HEARD_S)
    house.set_state(nodes[3], "draining")
    await asyncio.wait_for(house.until_online(len(nodes) - 1), HEARD_S)
