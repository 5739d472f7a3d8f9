from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from contracts.boards import Fingerprint
from contracts.engines import Endorsement, EngineRecord, Kind
from contracts.errors import FoothillError
from edge_node.config import Config
from edge_node.workshop import kind_for, open_engines, open_record
from fleet.config import FleetConfig
from fleet.engines import EngineSettings
from runtime.links.bundles.engine_registry import EngineRegistry
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from tests.edge_node.engine_rig import HERE, TRT, Rig
from tests.edge_node.workbench import BOUNDLESS, Bench
from tests.fleet.scripted import Fleet, ScriptedNode

AUTO = Config(engines="auto")


def board(target: str, **more: str) -> Fingerprint:
    return Fingerprint(target, "aarch64", "linux 5.15", 6, 8 << 30, "CUDAExecutionProvider", "onnxruntime 1.23", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "fingerprint", "kind"),
    [
        (Config(), board("jetson-orin-nano", tensorrt="10.3.0"), None),
        (AUTO, board("cpu-arm", tensorrt="10.3.0"), None),
        (AUTO, board("jetson-orin-nano"), None),
        (AUTO, board("jetson-orin-nano", tensorrt="10.3.0"), "tensorrt"),
        (AUTO, board("rtx-sm89", tensorrt="10.3.0", tensorrt_rtx="1.7.1.116"), "tensorrt"),
        (AUTO, board("rtx-sm89", tensorrt_rtx="1.7.1.116"), "tensorrt-rtx"),
    ],
)
def test_engines_are_for_boards_with_a_runtime_where_they_are_asked_for(
    config: Config, fingerprint: Fingerprint, kind: Kind | None
) -> None:
    assert kind_for(config, fingerprint) == kind


def test_a_node_without_engines_has_nothing_to_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Rig(tmp_path).warehouse)
    rest = {"state_dir": tmp_path, "private_key": signatures.generate(), "fleet_url": "http://127.0.0.1:1"}
    parts = {"bundles": bench.store, "host": bench.host, "updater": bench.updater}
    trust = TrustedFleet(tmp_path / "trust", "http://127.0.0.1:1", b"")
    off, on = (
        open_engines(config, board("jetson-orin-nano", tensorrt="10.3.0"), trust=trust, room=BOUNDLESS, **rest, **parts)  # type: ignore[arg-type]
        for config in (Config(), AUTO)
    )
    assert off is None
    assert on is not None
    assert (tmp_path / "engines" / "records").is_dir()


OWN, CONTROL, STRANGER = signatures.generate(), signatures.generate(), signatures.generate()
RECORD = EngineRecord("sha256:o", "sha256:e", 1, "options", "int8", HERE, ())


def fleet_keys() -> Mapping[str, str]:
    public = signatures.public_key(CONTROL)
    return {signatures.key_id(public): public}


def test_an_engine_is_believed_from_this_node_and_from_the_fleet_alone() -> None:
    opened = partial(open_record, signatures.public_key(OWN), fleet_keys)
    assert opened(signatures.sign(RECORD, OWN)) == RECORD
    assert opened(signatures.sign(Endorsement(RECORD, "oslo", 0.0), CONTROL)) == RECORD
    for wrong in (
        signatures.sign(RECORD, STRANGER),
        signatures.sign(RECORD, CONTROL),
        signatures.sign(Endorsement(RECORD, "oslo", 0.0), STRANGER),
        signatures.sign(Endorsement(RECORD, "oslo", 0.0), OWN),
    ):
        with pytest.raises(FoothillError) as refused:
            opened(wrong)
        assert refused.value.code == "forbidden"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def fleet(tmp_path: Path, session: aiohttp.ClientSession) -> AsyncIterator[Fleet]:
    """A fleet manager that takes engines from its nodes."""
    engines = EngineSettings("nodes")
    config = FleetConfig(state_dir=str(tmp_path / "fleet"), broker_url="mqtt://127.0.0.1:1", engines=engines)
    fleet = await Fleet(config, session).start()
    yield fleet
    await fleet.stop()


class SharingRig(Rig):
    """A node that speaks to a real registry."""

    def __init__(self, directory: Path, fleet: Fleet, node: ScriptedNode) -> None:
        super().__init__(directory)
        trust = TrustedFleet(directory / "trust", fleet.url, node.enrolment.root)
        self.private = node.private
        self.fleet = EngineRegistry(fleet.url, partial(trust.keys, "engine"))
        self.open_record = partial(open_record, signatures.public_key(node.private), partial(trust.keys, "engine"))


async def test_what_one_node_builds_another_of_the_same_kind_loads(fleet: Fleet, tmp_path: Path) -> None:
    oslo, bergen = [SharingRig(tmp_path / name, fleet, await fleet.operator.enrol(name)) for name in ("oslo", "bergen")]
    digest, again = oslo.pack("1"), bergen.pack("1")
    assert digest == again
    await fleet.operator.publish(oslo.warehouse.packed[digest], measured=False)
    first = await oslo.live()
    await first.serve(digest)
    await first.reaches(TRT)
    await first.settles()
    second = await bergen.live()
    await second.serve(digest)
    await second.reaches(TRT)
    assert (len(oslo.builder.built), len(bergen.builder.built)) == (1, 0)
    await second.bench.ask()
    await second.end()
    third = await bergen.live()
    await third.reaches(TRT)
    assert bergen.builder.built == []
    await oslo.end()
    await bergen.end()
