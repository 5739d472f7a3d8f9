"""Who calls, over real processes: a fleet with its ticket key, a router that knows its tenants, a node that asks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from foothill import Client, RequestError
from tests.edge_node.bundle_factory import pack
from tests.edge_node.test_node_process import EDGE, Fleet, Process, edge, fleet, picture  # noqa: F401 - a fixture

pytestmark = pytest.mark.integration


class Site:
    """A router and a node with callers' names and tickets between them."""

    def __init__(self, directory: Path, fleet: Fleet, ports: tuple[int, int]) -> None:  # noqa: F811
        self.directory = directory
        self.fleet = fleet
        node_port, cloud_port = ports
        self.node_url = f"http://127.0.0.1:{node_port}"
        (directory / "tokens.toml").write_text(
            f'[[tokens]]\nname = "kiosk"\nsha256 = "{hashlib.sha256(b"s3cret").hexdigest()}"\n'
        )
        (directory / "edge.toml").write_text(
            f'port = {node_port}\nstate_dir = "{directory}/node"\nprobation_s = 0.2\naudit_rate = 0.0\n'
            f"[auth]\ntickets = true\n"
        )
        (directory / "router.toml").write_text(
            f'port = 0\nstate_dir = "{directory}/router"\nfleet_url = "{fleet.url}"\n'
            f'broker_url = "{httpx.get(fleet.url + "/healthz").json()["broker_url"]}"\n'
            f'cloud_urls = ["http://127.0.0.1:{cloud_port}"]\nhop_key_file = "{directory}/fleet/keys/hop.key"\n'
            f'tokens_file = "{directory}/tokens.toml"\n'
            f'[tickets]\nkey_file = "{directory}/fleet/keys/ticket.key"\nrequests = 3\n'
        )
        enrolled = edge(
            *("enrol", "--fleet", fleet.url, "--token", fleet.token("frankfurt"), "--url", self.node_url),
            *("--state", str(directory / "node")),
        )
        assert enrolled.returncode == 0, enrolled.stderr
        self.node = Process(*EDGE, "run", str(directory / "edge.toml"))
        self.node.url()
        pack(directory / "bundle", threshold=0.0)
        fleet.publish(directory / "bundle")
        fleet.roll_out("digits-edge@1")
        self.router = Process("-m", "router", str(directory / "router.toml"))
        self.router_url = self.router.url()

    def wait_leased(self) -> None:
        """Until the router has heard of the node."""
        kiosk = {"Authorization": "Bearer s3cret"}
        while not httpx.post(f"{self.router_url}/v1/route", json={"model": "digits"}, headers=kiosk).json()["nodes"]:
            time.sleep(0.05)

    def stop(self) -> None:
        for process in (self.router, self.node):
            process.end()


@pytest.fixture
def site(tmp_path: Path, fleet: Fleet, unused_tcp_port_factory: object) -> Iterator[Site]:  # noqa: F811
    free = unused_tcp_port_factory
    assert callable(free)
    site = Site(tmp_path, fleet, (free(), free()))
    site.wait_leased()
    yield site
    site.stop()


def test_a_tenants_token_opens_the_router_and_its_ticket_the_node(site: Site) -> None:
    with Client(site.router_url, token="s3cret", trust_env=False) as client:
        answers = [client.predict("digits", picture()) for _ in range(2)]
        assert {answer.node for answer in answers} == {"frankfurt"}
        ticket = client.lease("digits").ticket
    sent = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {ticket}"}
    path = f"{site.node_url}/v1/predict/digits"
    third, fourth = (httpx.post(path, content=picture(), headers=sent) for _ in range(2))
    assert (third.status_code, fourth.status_code) == (200, 429)
    assert int(fourth.headers["Retry-After"]) >= 1
    for stranger in ({}, {"Authorization": "Bearer s3cret"}, {"Authorization": f"Bearer {ticket[:-6]}AAAAAA"}):
        refused = httpx.post(path, content=picture(), headers={"Content-Type": "image/jpeg", **stranger})
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    with Client(site.router_url, token="guess", trust_env=False) as client:
        with pytest.raises(RequestError) as raised:
            client.predict("digits", picture())
        assert (raised.value.status, raised.value.source) == (401, "router")
    proxied = httpx.post(
        f"{site.router_url}/v1/predict/digits",
        content=picture(),
        headers={"Content-Type": "image/jpeg", "Authorization": "Bearer s3cret"},
    )
    assert (proxied.status_code, proxied.headers["Foothill-Node"]) == (200, "frankfurt")


def test_a_key_that_the_fleet_takes_back_signs_no_more(site: Site) -> None:
    with Client(site.router_url, token="s3cret", trust_env=False) as client:
        ticket = client.lease("digits").ticket
    sent = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {ticket}"}

    def ask() -> httpx.Response:
        return httpx.post(f"{site.node_url}/v1/predict/digits", content=picture(), headers=sent)

    assert ask().status_code == 200
    key = site.directory / "fleet" / "keys" / "ticket.key"
    stolen, config = key.read_text(), site.directory / "fleet.toml"
    site.fleet.process.end()
    key.unlink()
    config.write_text(config.read_text().replace("port = 0", f"port = {site.fleet.url.rpartition(':')[2]}", 1))
    site.fleet.process = Process("-m", "fleet", str(config))
    site.fleet.process.url()
    assert key.read_text() != stolen
    site.node.end()
    site.node = Process(*EDGE, "run", str(site.directory / "edge.toml"))
    site.node.url()
    # Until the restarted node has asked the fleet, what the fleet signed before goes on to hold; then nobody can tell
    # for some seconds whether the key is a new one.
    while (answer := ask()).status_code in (200, 429, 503):
        time.sleep(0.1)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "does not name" in answer.json()["message"]
