from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from contracts import manifest as manifests
from contracts.engines import EngineRecord, Machine, Shapes
from contracts.errors import FoothillError
from contracts.headers import ENGINE
from contracts.messages import encode
from fleet.config import FleetConfig
from fleet.engines import EngineSettings
from runtime.links.bundles.engine_registry import EngineRegistry, open_endorsed
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from tests.fleet.scripted import Fleet, ScriptedNode

MACHINE = Machine("tensorrt", "10.3.0.30", "linux", "x86_64", "cpu-x86", gpu="g", sm=89, sm_count=128)
PROFILE = (Shapes("image", (1, 1), (1, 1), (8, 1)),)


class Shop:
    """A fleet with one published bundle, and one node that has built engines for it."""

    def __init__(self, fleet: Fleet, node: ScriptedNode, onnx: str, directory: Path) -> None:
        self.fleet = fleet
        self.node = node
        self.onnx = onnx
        self.directory = directory
        self.trust = TrustedFleet(directory / "trust", fleet.url, node.enrolment.root)
        self.registry = EngineRegistry(fleet.url, lambda: self.trust.keys("engine"))

    def record(self, data: bytes = b"engine", **changes: Any) -> EngineRecord:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        record = EngineRecord(self.onnx, digest, len(data), "options", "int8", MACHINE, PROFILE)
        return msgspec.structs.replace(record, **changes)

    async def offer(self, data: bytes = b"engine", *, key: bytes = b"", **changes: Any) -> EngineRecord:
        record = self.record(data, **changes)
        path = self.directory / "engine"
        path.write_bytes(data)
        await self.registry.offer(signatures.sign(record, key or self.node.private), path)
        return record

    async def refused(self, code: str, words: str, data: bytes = b"engine", **changes: Any) -> None:
        with pytest.raises(FoothillError, match=words) as error:
            await self.offer(data, **changes)
        assert error.value.code == code

    async def found(self) -> list[EngineRecord]:
        return [one.record for one in await self.registry.find(self.onnx)]

    async def fetched(self, record: EngineRecord) -> bytes:
        await self.registry.fetch(record, self.directory / "fetched")
        return (self.directory / "fetched").read_bytes()


@pytest.fixture
def accept() -> EngineSettings:
    return EngineSettings("nodes", max_engine_bytes=100, max_bytes=40)


@pytest.fixture
def config(tmp_path: Path, accept: EngineSettings) -> FleetConfig:
    """Engines go by HTTP alone: no broker answers."""
    return FleetConfig(state_dir=str(tmp_path / "fleet"), broker_url="mqtt://127.0.0.1:1", engines=accept)


@pytest.fixture
async def shop(fleet: Fleet, bundles: dict[str, Path], tmp_path: Path) -> Shop:
    await fleet.operator.publish(bundles["1"])
    manifest = manifests.decode((bundles["1"] / manifests.FILE).read_bytes())
    node = await fleet.operator.enrol("oslo")
    return Shop(fleet, node, manifest.files["cpu.onnx"].sha256, tmp_path)


async def test_an_engine_of_one_node_comes_to_another_under_the_fleets_signature(shop: Shop) -> None:
    record = await shop.offer()
    (shared,) = await shop.registry.find(shop.onnx)
    assert shared.record == record
    assert shared.envelope.key_id in shop.trust.keys("engine")
    assert shared.envelope.key_id != signatures.key_id(signatures.public_key(shop.node.private))
    assert await shop.fetched(record) == b"engine"
    assert await shop.registry.find("sha256:" + "0" * 64) == []


async def test_engines_outlive_the_fleet_manager(shop: Shop) -> None:
    record = await shop.offer()
    await shop.fleet.stop()
    await shop.fleet.start()
    assert await shop.found() == [record]
    assert await shop.fetched(record) == b"engine"


async def test_an_engine_that_comes_again_changes_nothing(shop: Shop) -> None:
    await shop.offer()
    (before,) = await shop.registry.find(shop.onnx)
    await shop.offer()
    assert await shop.registry.find(shop.onnx) == [before]


async def test_what_no_enrolled_node_signed_is_refused(shop: Shop) -> None:
    await shop.refused("forbidden", "does not allow", key=signatures.generate())
    assert await shop.found() == []


async def test_a_node_offers_for_its_own_kind_of_machine(shop: Shop) -> None:
    other = msgspec.structs.replace(MACHINE, target="jetson-thor", arch="aarch64")
    await shop.refused("forbidden", "offers an engine for jetson-thor", machine=other)


async def test_bytes_that_are_not_the_records_are_refused(shop: Shop) -> None:
    await shop.refused("bad_request", "has digest", data=b"ENGINE", engine=shop.record().engine)
    assert await shop.found() == []
    with pytest.raises(FoothillError, match="is not in this registry"):
        await shop.fetched(shop.record())


async def test_an_engine_of_something_unpublished_is_refused(shop: Shop) -> None:
    await shop.refused("bad_request", "No bundle with the ONNX file", onnx="sha256:" + "0" * 64)


async def test_nobody_replaces_the_engine_that_others_run(shop: Shop) -> None:
    first = await shop.offer(b"first")
    await shop.refused("conflict", "is here for the same machine", data=b"second")
    assert await shop.found() == [first]
    other_mode = msgspec.structs.replace(MACHINE, power_mode="15W")
    await shop.offer(b"second", machine=other_mode)
    assert len(await shop.found()) == 2


async def test_an_engine_larger_than_allowed_is_refused_before_it_is_sent(shop: Shop) -> None:
    await shop.refused("body_too_large", "raise engines.max_engine_bytes", data=b"x" * 41)
    await shop.refused("body_too_large", "0 bytes", data=b"")


async def test_the_oldest_engines_make_room(shop: Shop) -> None:
    machines = [msgspec.structs.replace(MACHINE, power_mode=mode) for mode in ("1", "2", "3")]
    records = [
        await shop.offer(machine.power_mode.encode() * 15, machine=machine)
        for machine in machines
        if machine.power_mode
    ]
    assert sorted(one.engine for one in await shop.found()) == sorted(one.engine for one in records[1:])
    with pytest.raises(FoothillError, match="is not in this registry"):
        await shop.fetched(records[0])


@pytest.mark.parametrize("header", ["", "no base64!", base64.b64encode(b"\xc1").decode()])
async def test_a_record_that_cannot_be_read_is_refused(shop: Shop, session: aiohttp.ClientSession, header: str) -> None:
    url = f"{shop.fleet.url}/v1/engines/{shop.record().engine}"
    async with session.put(url, data=b"engine", headers={ENGINE: header}) as answer:
        assert answer.status == 400


async def test_a_record_for_another_url_is_refused(shop: Shop, session: aiohttp.ClientSession) -> None:
    signed = signatures.sign(shop.record(), shop.node.private)
    headers = {ENGINE: base64.b64encode(encode(signed)).decode()}
    async with session.put(f"{shop.fleet.url}/v1/engines/sha256:{'0' * 64}", headers=headers) as answer:
        assert answer.status == 400


async def by_operator(shop: Shop, session: aiohttp.ClientSession, token: str) -> int:
    record = shop.record()
    headers = {ENGINE: base64.b64encode(encode(record)).decode(), "Authorization": f"Bearer {token}"}
    async with session.put(f"{shop.fleet.url}/v1/engines/{record.engine}", data=b"engine", headers=headers) as answer:
        return answer.status


class TestOperatorsAlone:
    @pytest.fixture
    def accept(self) -> EngineSettings:
        return EngineSettings("operators")

    async def test_an_operator_brings_an_engine_and_a_node_does_not(
        self, shop: Shop, session: aiohttp.ClientSession
    ) -> None:
        await shop.refused("forbidden", 'engines.accept to "nodes"')
        assert await by_operator(shop, session, "wrong") == 403
        assert await by_operator(shop, session, shop.fleet.parts.admin_token) == 201
        assert await shop.found() == [shop.record()]


class TestNobody:
    @pytest.fixture
    def accept(self) -> EngineSettings:
        return EngineSettings()

    async def test_by_default_nobodys_engine_is_taken(self, shop: Shop, session: aiohttp.ClientSession) -> None:
        await shop.refused("forbidden", "takes no engines from nodes")
        assert await by_operator(shop, session, shop.fleet.parts.admin_token) == 403


async def test_an_endorsement_by_another_key_is_passed_over(shop: Shop) -> None:
    await shop.offer()
    stranger = EngineRegistry(shop.fleet.url, lambda: {"0" * 16: "0" * 64})
    assert await stranger.find(shop.onnx) == []


async def test_a_fleet_that_is_away_is_unavailable_and_the_error_says_where(shop: Shop) -> None:
    await shop.fleet.stop()
    with pytest.raises(FoothillError, match="/v1/engines cannot be reached") as error:
        await shop.registry.find(shop.onnx)
    assert error.value.code == "unavailable"
    await shop.fleet.start()


def test_a_nodes_own_record_does_not_pass_for_an_endorsement() -> None:
    key = signatures.generate()
    public = signatures.public_key(key)
    record = EngineRecord("o", "e", 1, "p", "int8", MACHINE, PROFILE)
    with pytest.raises(FoothillError, match="altered or forged"):
        open_endorsed(signatures.sign(record, key), {signatures.key_id(public): public})
