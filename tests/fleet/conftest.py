"""A real fleet manager over a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fleet.broker import Broker, BrokerConfig
from fleet.config import FleetConfig
from fleet.judging.aims import GateSettings, Margins
from fleet.rollouts.plan import Policy
from tests.fleet.scripted import Fleet, write_bundle


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker")))
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def config(broker: Broker, tmp_path: Path) -> FleetConfig:
    return FleetConfig(
        state_dir=str(tmp_path / "fleet"),
        broker_url=broker.url,
        policy=Policy(healthy_deadline_s=20.0),
        gate=GateSettings(min_baseline=30, margins=Margins(disagreeing=0.1)),
        silence_s=20.0,
    )


@pytest.fixture
async def fleet(config: FleetConfig, session: aiohttp.ClientSession) -> AsyncIterator[Fleet]:
    fleet = await Fleet(config, session).start()
    yield fleet
    await fleet.stop()


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, Path]:
    """Versions 1 to 3 of digits-edge, packed."""
    paths = {version: tmp_path / f"bundle-{version}" for version in ("1", "2", "3")}
    for version, path in paths.items():
        write_bundle(path, version)
    return paths
