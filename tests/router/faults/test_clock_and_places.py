"""The clock jumps, or the file of places is ruined, under load: no request is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from benchmarks.fault_story import Fault, tell
from benchmarks.faulty_nodes import FaultyNode
from benchmarks.load import Target
from contracts.errors import FoothillError
from contracts.tickets import check_time, parse
from router import wiring
from router.config import TicketConfig
from router.places import geo as geo_file
from runtime.links.access.tickets import verify
from runtime.links.trust import signatures
from tests.router.faults.conftest import RATE, SHORT, asking, statics
from tests.router.faults.test_nodes import RECOVERY_S, check
from tests.router.places import databases
from tests.router.test_app import Client, Route
from tests.runtime.raw_caller import until

DAY_S = 86_400.0
LOOK_S = 0.2
CITY = databases.city({"198.51.100.0/24": databases.TOKYO})


class Clocks:
    """What the router takes for `time`: its wall clock may jump."""

    def __init__(self) -> None:
        self.off_s = 0.0

    monotonic = staticmethod(time.monotonic)

    def time(self) -> float:
        return time.time() + self.off_s


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(wiring, "time", made)
    return made


@pytest.mark.parametrize("off_s", [DAY_S, -DAY_S])
async def test_a_clock_that_jumps_costs_no_answer(
    clocks: Clocks, target: Target, nodes: list[FaultyNode], off_s: float
) -> None:
    """Nodes believe a mark that is at most a minute off. Without one they take the router for a client, and answer."""

    async def jump() -> None:
        clocks.off_s = off_s

    async def back() -> None:
        clocks.off_s = 0.0

    story = await tell(target, nodes, nodes[0], Fault(jump, back), RATE, SHORT)
    check(story)
    assert story.back_after_s is not None
    assert story.back_after_s < RECOVERY_S
    strangers = sum(node.strangers for node in nodes)
    assert strangers >= 0.9 * len(story.during.status)
    await tell(target, nodes, nodes[0], Fault(back, back), RATE, SHORT._replace(before_s=0.01, during_s=0.1))
    assert sum(node.strangers for node in nodes) == strangers, "it is believed again"


@pytest.mark.parametrize(("off_s", "code"), [(DAY_S, "unauthorized"), (-DAY_S, "ticket_expired"), (30.0, "")])
async def test_tickets_of_a_clock_that_is_off_are_refused_with_a_word(
    clocks: Clocks, router: Route, nodes: list[FaultyNode], tmp_path: Path, off_s: float, code: str
) -> None:
    private = signatures.generate()
    key = tmp_path / "ticket.key"
    key.write_text(private.hex())
    key.chmod(0o600)
    client = await router(statics(nodes), [], tickets=TicketConfig(key_file=str(key)))
    clocks.off_s = off_s
    lease = await client.json("POST", "/v1/route", body=b'{"model":"digits"}')
    ticket = verify(parse(lease["ticket"]), signatures.public_key(private))
    if not code:
        check_time(ticket, time.time())
        return
    with pytest.raises(FoothillError) as raised:
        check_time(ticket, time.time())
    assert raised.value.code == code


@pytest.fixture
def city(tmp_path: Path) -> Path:
    """A database that takes 198.51.100.0/24 for Tokyo's."""
    path = tmp_path / "city.mmdb"
    path.write_bytes(CITY)
    return path


async def place_of(client: Client) -> object:
    return (await client.json("GET", "/v1/explain?model=digits&ip=198.51.100.7"))["place"]


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"\xab\xcd\xefMaxMind.com" * 50])
async def test_a_file_of_places_that_is_ruined_changes_nothing(
    router: Route,
    nodes: list[FaultyNode],
    city: Path,
    garbage: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(geo_file.Geo.follow, "__defaults__", (LOOK_S,))
    client = await router(statics(nodes), [], geoip_database=str(city))
    known = await place_of(client)

    async def ruin() -> None:
        databases.write(city, garbage)

    async def mend() -> None:
        databases.put(city, CITY)

    story = await tell(asking(client), nodes, nodes[0], Fault(ruin, mend), RATE, SHORT)
    check(story)
    assert "stays" in caplog.text
    assert known is not None
    assert await place_of(client) == known
    await asyncio.wait_for(until(lambda: "took over" in caplog.text), RECOVERY_S)
    assert await place_of(client) == known
