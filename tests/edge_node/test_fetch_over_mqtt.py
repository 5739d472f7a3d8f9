"""A node that reaches the broker and not the registry: a real fleet manager, broker and node, as processes."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.manifest import FILE, digest_of
from tests.edge_node.bundle_factory import pack
from tests.edge_node.test_node_process import Fleet, Process, enrol

pytestmark = pytest.mark.integration

BIG = os.urandom(3_000_001)
BROKERS = [
    pytest.param(
        "mosquitto",
        marks=pytest.mark.skipif(
            shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") is None,
            reason="mosquitto is not installed",
        ),
    ),
    "iotcore",
]


@pytest.fixture(params=BROKERS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, broker=request.param)
    yield fleet
    fleet.stop()


@pytest.fixture
def closed_url() -> Iterator[str]:
    """A port where nobody listens, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("fetch", ["auto", "mqtt"])
def test_a_node_with_nothing_but_the_broker_takes_new_bundles(
    fleet: Fleet, tmp_path: Path, closed_url: str, fetch: str
) -> None:
    assert enrol(fleet, tmp_path).returncode == 0
    config = tmp_path / "edge.toml"
    config.write_text(
        f'port = 0\nstate_dir = "{tmp_path}/node"\nprobation_s = 0.1\nfleet_url = "{closed_url}"\nfetch = "{fetch}"\n'
    )
    node = Process("-m", "edge_node", str(config))
    try:
        url = node.url()
        for version in ("1", "2"):
            bundle = tmp_path / f"bundle-{version}"
            pack(bundle, version=version, seed=int(version), extra={"extra/big.bin": BIG})
            fleet.publish(bundle)
            fleet.roll_out(f"digits-edge@{version}")
            ready = httpx.get(f"{url}/v2/models/digits/versions/{version}/ready", timeout=10)
            assert ready.status_code == 200, ready.text
        stored = tmp_path / "node" / "store" / "bundles" / digest_of((bundle / FILE).read_bytes())[7:]
        assert (stored / "extra" / "big.bin").read_bytes() == BIG
        sent = httpx.get(f"{fleet.url}/metrics").text
        (line,) = [line for line in sent.splitlines() if line.startswith("foothill_fleet_chunk_bytes_total")]
        assert len(BIG) < float(line.split()[1]) < 1.1 * len(BIG), "the big file, which both share, came once"
    finally:
        node.end()
    assert "foothill_fleet_chunk_wants_refused_total 0.0" in sent
    assert ("going on over MQTT" in node.said) == (fetch == "auto")
