"""Every part of Foothill on one machine: which processes there are, with which configuration, in which order.

Each part is an OS process with a folder and a log of its own, and talks to the others over real sockets only. With
distances on, parts and clients that are far apart connect through a relay that delays (`foothill.simulators.wan`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from contracts.enrolment import TokenRequest
from fleet.api import RolloutRequest, RolloutView
from fleet.client import FleetClient
from foothill import toml
from foothill.plain_http import get
from foothill.processes import Child, Processes, file_ready, http_ready
from foothill.simulators.links import LinkCounts, Links, Ready, Site, bytes_to, connect_to, plan, through
from runtime import regions
from runtime.links.process.ports import check_free, free_ports

HOME = "northeurope"
"""Broker, fleet manager, cloud tier and router stand in Dublin."""
EDGES = {"frankfurt": "germanywestcentral", "ashburn": "eastus", "tokyo": "japaneast"}
MODEL, CLOUD_BUNDLE, EDGE_BUNDLE = "digits", "digits-cloud@1", "digits-edge@1"

_PORTS = {
    "broker": 1883,
    "fleet": 8070,
    "router": 8080,
    "cloud": 8090,
    "frankfurt": 8101,
    "ashburn": 8102,
    "tokyo": 8103,
}
_POLL_S = 0.1


class Urls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where everything answers: the content of `--ready-file`."""

    router: str
    cloud: str
    edges: dict[str, str]
    fleet: str
    broker: str


class MachineError(Exception):
    """The parts cannot be brought up or changed. The message says what happened and where to look."""


class Machine:
    """The parts on this machine: their ports, folders and running processes.

    `relay`: all connect through a process that counts bytes and, with `distances`, delays. `client_regions`: where
    clients will call from. `usual_ports`: take the documented ports where they are free, else any free ones. Ports are
    kept in `state`, since a node's URL is part of its signed identity. `say` hears a line for every step.
    """

    def __init__(
        self,
        state: Path,
        processes: Processes,
        *,
        relay: bool = False,
        distances: bool = False,
        client_regions: Iterable[str] = (),
        geoip_database: str = "",
        usual_ports: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._state = state.absolute()
        self._processes = processes
        self._say = say
        self._geoip_database = geoip_database
        self._ports = _kept_ports(self._state / "ports.json", usual=usual_ports)
        self._regions = sorted({*client_regions, HOME, *EDGES.values()}) if relay else []
        self._distances = distances
        self._relay: Ready | None = None
        self._running: dict[str, Child] = {}

    @property
    def urls(self) -> Urls:
        return Urls(
            router=self._url("router"),
            cloud=self._url("cloud"),
            edges={name: self._url(name) for name in EDGES},
            fleet=self._url("fleet"),
            broker=self._url("broker"),
        )

    def cloud_bytes(self) -> int:
        """Bytes that crossed the relay to and from the cloud tier so far. Raises MachineError without a relay."""
        if self._relay is None:
            raise MachineError("Bytes are counted by the relay, and this machine was started without one.")
        counts = msgspec.json.decode(get(f"{self._relay.control}/links", timeout_s=5.0).body, type=LinkCounts)
        return bytes_to("cloud", counts, self._regions)

    def fleet(self) -> FleetClient:
        """A client of the fleet manager, as its operator."""
        token = (self._state / "fleet" / "admin.token").read_text().strip()
        return FleetClient(self._url("fleet"), token)

    def connect_to(self, region: str) -> dict[str, str]:
        """For a client at `region`: the origin of each part to the origin that leads there over the distance."""
        return connect_to(region, self._sites(), self._relay) if self._relay else {}

    def start_core(self) -> None:
        """The relay, the broker and the fleet manager."""
        if self._regions:
            self._start_relay()
        self.start("broker")
        self.start("fleet")

    def start_serving(self) -> None:
        """The cloud tier, which fetches its bundle from the registry, and the router."""
        self.start("cloud")
        self.start("router")

    def join(self, name: str) -> None:
        """Enrols an edge node with a one-time token, unless it has joined before, and starts it."""
        state = self._state / name
        if not (state / "enrolment.json").exists():
            place = regions.load().regions[EDGES[name]].place
            token = self.fleet().issue_token(TokenRequest(name, EDGES[name], place.lat, place.lon)).token
            self._say(f"{name} joins the fleet")
            self._enrol(name, token, state)
        self.start(name)

    def start(self, part: str) -> Child:
        """Starts one part with its configuration and waits until it answers."""
        self._say(f"starting {part}")
        config = self._state / f"{part}.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(toml.dumps(self._config(part)))
        child = self._processes.start(part, [sys.executable, "-m", _MODULES.get(part, "edge_node"), str(config)])
        self._running[part] = child
        self._processes.wait_ready(child, self._answers(part))
        return child

    def stop(self, part: str) -> None:
        self._processes.stop(self._running.pop(part))

    def kill(self, part: str) -> None:
        """SIGKILL, as a power cut would."""
        self._processes.kill(self._running.pop(part))

    def roll_out(
        self, request: RolloutRequest, *, timeout_s: float, each: Callable[[RolloutView], None]
    ) -> RolloutView:
        """Starts a rollout and follows it to its end, telling `each` view. Raises MachineError after `timeout_s`."""
        return self.follow(self.fleet().start_rollout(request), timeout_s=timeout_s, each=each)

    def follow(self, view: RolloutView, *, timeout_s: float, each: Callable[[RolloutView], None]) -> RolloutView:
        """The same for a rollout that is under way."""
        fleet = self.fleet()
        until_s = time.monotonic() + timeout_s
        while not view.ended:
            if time.monotonic() > until_s:
                raise MachineError(f"Rollout {view.id} of {view.bundle} is still {view.state} after {timeout_s:g} s.")
            self._processes.check()
            time.sleep(_POLL_S)
            view = fleet.rollout(view.id)
            each(view)
        return view

    def wait_served(self, *, timeout_s: float = 60.0) -> None:
        """Until the router would send a client to every edge node, and each of them has the model."""
        wanted = set(EDGES)
        self._processes.wait_ready(self._running["router"], lambda: self._leased() == wanted, timeout_s=timeout_s)
        for name in EDGES:
            ready = http_ready(f"{self._url(name)}/v2/models/{MODEL}/ready")
            self._processes.wait_ready(self._running[name], ready, timeout_s=timeout_s)

    def _leased(self) -> set[str]:
        try:
            answer = httpx.post(
                f"{self._url('router')}/v1/route", json={"model": MODEL, "candidates": len(EDGES)}, trust_env=False
            )
        except httpx.TransportError:
            return set()
        return {node["node"] for node in answer.json().get("nodes", ())}

    def _start_relay(self) -> None:
        """A link from every region to every part."""
        file, ready = self._state / "links.json", self._state / "relay.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        ready.unlink(missing_ok=True)
        links = plan(self._sites(), self._regions, regions.load())
        if not self._distances:
            links = tuple(msgspec.structs.replace(link, rtt_ms=0.0) for link in links)
        file.write_bytes(msgspec.json.encode(Links(links)))
        command = [sys.executable, "-m", "foothill.simulators.wan", str(file), "--ready-file", str(ready)]
        child = self._processes.start("relay", command)
        self._processes.wait_ready(child, file_ready(ready))
        self._relay = msgspec.json.decode(ready.read_bytes(), type=Ready)

    def _enrol(self, name: str, token: str, state: Path) -> None:
        fleet = self._seen_from(EDGES[name], "fleet")
        command = [sys.executable, "-m", "foothill", "edge", "enrol", "--fleet", fleet, "--token", token]
        command += ["--url", self._url(name), "--state", str(state)]
        env = {**os.environ, "PYTHONSAFEPATH": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MachineError(f"{name} could not join the fleet:\n{done.stdout}{done.stderr}")

    def _config(self, part: str) -> dict[str, Any]:
        own = {"host": "127.0.0.1", "port": self._ports[part], "state_dir": str(self._state / part)}
        return {**own, **(_CONFIGS[part](self) if part in _CONFIGS else self._edge_config(part))}

    def _fleet_config(self) -> dict[str, Any]:
        return {"broker_url": self._url("broker"), "cloud_urls": [self._url("cloud")]}

    def _cloud_config(self) -> dict[str, Any]:
        return {
            "fleet_url": self._url("fleet"),
            "models": {MODEL: CLOUD_BUNDLE},
            "region": HOME,
            "hop_key_file": str(self._state / "fleet" / "keys" / "hop.key"),
        }

    def _router_config(self) -> dict[str, Any]:
        place = regions.load().regions[HOME].place
        return {
            "fleet_url": self._url("fleet"),
            "broker_url": self._url("broker"),
            "root": str(self._state / "fleet" / "tuf" / "metadata" / "1.root.json"),
            "cloud_urls": [self._url("cloud")],
            "region": HOME,
            "cloud_region": HOME,
            "place": {"lat": place.lat, "lon": place.lon},
            "hop_key_file": str(self._state / "fleet" / "keys" / "hop.key"),
            "trusted_proxies": ["127.0.0.0/8"],
            "geoip_database": self._geoip_database,
            "connect_to": self.connect_to(HOME),
            "workers": 1,
        }

    def _edge_config(self, name: str) -> dict[str, Any]:
        region = EDGES[name]
        return {
            "fleet_url": self._seen_from(region, "fleet"),
            "broker_url": self._seen_from(region, "broker"),
            "cloud_urls": [self._seen_from(region, "cloud")],
            "cloud_region": HOME,
        }

    def _answers(self, part: str) -> Callable[[], bool]:
        if part == "broker":
            return lambda: _accepts(self._ports["broker"])
        path = "/v2/health/ready" if part == "cloud" else "/healthz"
        return http_ready(self._url(part) + path)

    def _sites(self) -> Sequence[Site]:
        return [Site(part, self._url(part), EDGES.get(part, HOME)) for part in _PORTS]

    def _seen_from(self, region: str, part: str) -> str:
        """The part's URL for a party at `region`."""
        site = Site(part, self._url(part), EDGES.get(part, HOME))
        return through(region, site, self._relay) if self._relay else site.url

    def _url(self, part: str) -> str:
        return f"{'mqtt' if part == 'broker' else 'http'}://127.0.0.1:{self._ports[part]}"


_MODULES = {"broker": "fleet.broker", "fleet": "fleet", "cloud": "cloud_tier", "router": "router"}
_CONFIGS: dict[str, Callable[[Machine], dict[str, Any]]] = {
    "broker": lambda machine: {},
    "fleet": Machine._fleet_config,
    "cloud": Machine._cloud_config,
    "router": Machine._router_config,
}


def _kept_ports(file: Path, *, usual: bool) -> dict[str, int]:
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    free = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    ports = {part: port if usual and _is_free(port) else free[part] for part, port in _PORTS.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(ports))
    return ports


def _is_free(port: int) -> bool:
    try:
        check_free("127.0.0.1", port)
    except OSError:
        return False
    return True


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
