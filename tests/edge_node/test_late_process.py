"""The uplink cut, the node killed, the uplink back: every promised late answer comes, under its own id, no other."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from contracts.messages import Late, Signed, decode
from contracts.topics import node_topic
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from tests.edge_node.bundle_factory import pack
from tests.edge_node.test_node_process import EDGE, Fleet, Process, enrol, fleet, picture  # noqa: F401 - a fixture
from tests.runtime.serving.bundle_factory import make_classifier

pytestmark = pytest.mark.integration

SURE_OF_SEVEN = [60.0 if label == 7 else 0.0 for label in range(10)]
TENANTS = {"kiosk": "s3cret", "shop": "sh0p"}


@pytest.fixture
def cloud_port() -> Iterator[int]:
    """A port that nothing else takes while nothing listens there."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])


class Site:
    """A node whose cloud is away until `start_cloud`."""

    def __init__(self, directory: Path, fleet: Fleet, cloud_port: int) -> None:  # noqa: F811
        self.directory = directory
        self.fleet = fleet
        self.cloud_port = cloud_port
        self.cloud: Process | None = None
        tokens = "\n".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"'
            for name, token in TENANTS.items()
        )
        (directory / "tokens.toml").write_text(tokens)
        (directory / "edge.toml").write_text(
            f'port = 0\nstate_dir = "{directory}/node"\nprobation_s = 0.2\naudit_rate = 0.0\n'
            f'cloud_urls = ["http://127.0.0.1:{cloud_port}"]\n'
            f'[auth]\ntokens_file = "{directory}/tokens.toml"\n[spool]\nper_s = 100.0\n'
        )
        self.node, self.url = self.start_node()

    def start_node(self) -> tuple[Process, str]:
        node = Process(*EDGE, "run", str(self.directory / "edge.toml"))
        return node, node.url()

    def restart_after_kill(self) -> None:
        assert self.node.end(signal.SIGKILL) == -signal.SIGKILL
        self.node, self.url = self.start_node()

    def start_cloud(self) -> None:
        config = self.directory / "cloud.toml"
        config.write_text(
            f'port = {self.cloud_port}\nstate_dir = "{self.directory}/cloud"\nfleet_url = "{self.fleet.url}"\n'
            f'hop_key_file = "{self.directory}/fleet/keys/hop.key"\n[auth]\ntickets = true\n'
        )
        self.cloud = Process("-m", "cloud_tier", str(config))
        url = self.cloud.url()
        while httpx.get(f"{url}/v2/health/ready").status_code != 200:
            time.sleep(0.05)

    def ask(self, request_id: str, *, tenant: str = "kiosk", **terms: str) -> httpx.Response:
        sent = {"Content-Type": "image/jpeg", "Foothill-Request-Id": request_id, **bearer(tenant)}
        sent |= {f"Foothill-{name}": value for name, value in terms.items()}
        return httpx.post(f"{self.url}/v1/predict/digits", content=picture(), headers=sent, timeout=20)

    def late(self, request_id: str, *, tenant: str = "kiosk") -> httpx.Response:
        return self.get(f"/v1/results/{request_id}", **bearer(tenant))

    def get(self, path: str, **sent: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=sent, timeout=20)

    def stop(self) -> None:
        for process in (self.node, self.cloud):
            if process is not None:
                process.end()


def bearer(tenant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TENANTS[tenant]}"}


@pytest.fixture
def site(tmp_path: Path, fleet: Fleet, cloud_port: int) -> Iterator[Site]:  # noqa: F811
    assert enrol(fleet, tmp_path).returncode == 0
    site = Site(tmp_path, fleet, cloud_port)
    pack(tmp_path / "edge-bundle", threshold=2.0)
    make_classifier(tmp_path / "cloud-bundle", name="digits-cloud", tier="cloud", bias=SURE_OF_SEVEN)
    for bundle in ("edge-bundle", "cloud-bundle"):
        fleet.publish(tmp_path / bundle)
    fleet.roll_out("digits-edge@1")
    yield site
    site.stop()


class Heard:
    """Late answers on the fleet's broker, their signatures checked."""

    def __init__(self, site: Site) -> None:
        enrolment = json.loads((site.directory / "node" / "enrolment.json").read_text())
        public = signatures.public_key(bytes.fromhex(enrolment["private_key"]))
        self._keys = {signatures.key_id(public): public}
        self.port = MqttPort(enrolment["broker_url"], "listener")
        self.port.subscribe(node_topic("frankfurt", "late"), self._hear)
        self.answers: list[Late] = []
        self.news = asyncio.Event()

    def _hear(self, topic: str, payload: bytes) -> None:
        self.answers.append(signatures.verify(decode(payload, Signed), self._keys, Late))
        self.news.set()

    async def until(self, ids: set[str]) -> None:
        while not ids <= {answer.request_id for answer in self.answers}:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 60)


@pytest.fixture
async def heard(site: Site) -> AsyncIterator[Heard]:
    made = Heard(site)
    await made.port.start()
    await made.port.wait_connected(20)
    yield made
    await made.port.stop()


PROMISED = [f"doubt-{at}" for at in range(8)]


def ask_in_vain(site: Site) -> None:
    for request_id in PROMISED:
        answer = site.ask(request_id)
        assert (answer.status_code, answer.headers["Foothill-Degraded"]) == (200, "true"), answer.text
        assert answer.headers["Foothill-Reason"] in ("cloud-failed", "no-cloud")
        assert answer.headers["Foothill-Late"] == "spooled"
    for request_id, terms in (("inside", {"Residency": "eu-central"}), ("never", {"Escalation": "never"})):
        assert "Foothill-Late" not in site.ask(request_id, **terms).headers
    assert "Foothill-Late" not in site.ask("bad", Escalation="sometimes").headers
    site.ask("shops", tenant="shop")


def wait_over_a_kill(site: Site) -> None:
    site.restart_after_kill()
    for request_id in PROMISED:
        waiting = site.late(request_id)
        assert (waiting.status_code, waiting.json()["state"]) == (202, "spooled")
        assert waiting.headers["Foothill-Late"] == "spooled"
        assert site.late(request_id, tenant="shop").status_code == 404
    assert site.get(f"/v1/results/{PROMISED[0]}").status_code == 401


def collect(site: Site) -> None:
    for request_id in PROMISED:
        told = site.late(request_id)
        assert (told.status_code, told.json()["label"], told.json()["reason"]) == (200, "7", "late")
        assert told.json()["request_id"] == told.headers["Foothill-Request-Id"] == request_id
        assert (told.headers["Foothill-Late"], told.headers["Foothill-Tier"]) == ("delivered", "cloud")
        assert site.late(request_id, tenant="shop").status_code == 404
    for request_id in ("inside", "never", "bad", "unheard-of"):
        assert site.late(request_id).status_code == 404
    live = site.ask("live")
    assert (live.headers["Foothill-Tier"], live.headers["Foothill-Degraded"]) == ("cloud", "false")
    metrics = site.get("/metrics", **bearer("kiosk")).text
    assert "foothill_spool_delivered_total 9.0" in metrics
    assert "foothill_spool_inputs 0.0" in metrics
    for path in (site.directory / "node").glob("spool.db*"):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_late_answers_come_through_a_cut_uplink_and_a_kill(site: Site, heard: Heard) -> None:
    """What blocks runs beside the loop: who listens must answer the broker."""
    for story in (ask_in_vain, wait_over_a_kill):
        await asyncio.to_thread(story, site)
    await heard.port.wait_connected(20)
    await asyncio.to_thread(Site.start_cloud, site)
    await heard.until({*PROMISED, "shops"})
    assert {answer.request_id for answer in heard.answers} == {*PROMISED, "shops"}
    await asyncio.to_thread(collect, site)
