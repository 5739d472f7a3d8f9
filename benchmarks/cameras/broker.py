"""The site's broker is killed, and comes back: what its subscribers heard, beside what the node itself said."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.cameras import clips
from benchmarks.cameras.site import Site, rtsp, running
from benchmarks.rtsp.server import Mount, serving
from benchmarks.stage import Stage
from contracts.topics import PREFIX
from fleet.broker import mosquitto_config
from model_compiler.pack import Packed
from runtime.links.process.ports import free_ports

SPAN_S = 12.0
BACK_OFF_S = 1.5
"""The longest pause of a node's between two attempts to find its broker."""
_CAMERAS = ("one", "other")
_SAVED_S = 2.0
"""The broker saves its sessions once a second."""
_BACK_S = 15.0
_PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


class Restart(NamedTuple):
    """`rate` of the cameras during the outage over that before. `recovery_s`: from the broker's start until an event
    came over it again. Of `said` messages about tracks, `away` of them during the outage, so many were `lost`,
    `doubled`, and `late`: behind a later one of their camera."""

    rate: float
    recovery_s: float
    said: int
    away: int
    lost: int
    doubled: int
    late: int


class _Event(msgspec.Struct, frozen=True):
    """What tells one message of an event from all others."""

    camera: str
    epoch: int
    sequence: int
    event: str
    phase: str


class _Broker:
    """Mosquitto with persistence, on one port through all its lives."""

    def __init__(self, program: str, directory: Path) -> None:
        (self.port,) = free_ports(1)
        directory.mkdir()
        config = directory / "mosquitto.conf"
        config.write_text(mosquitto_config("127.0.0.1", self.port, directory))
        self._command = [program, "-c", str(config)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return
            time.sleep(0.02)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class _Subscriber:
    """Somebody whose session outlives the broker. `heard` is every event message that it was handed, in order."""

    def __init__(self, port: int) -> None:
        self.heard: list[bytes] = []
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=MQTTv5)
        self.client.reconnect_delay_set(min_delay=1, max_delay=1)
        self.client.on_message = self._on_message
        terms: Properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        terms.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=terms)
        self.client.loop_start()
        self.client.subscribe(f"{PREFIX}/cameras/#", qos=1)

    def _on_message(self, _client: Client, _: object, message: MQTTMessage) -> None:
        if message.topic.endswith("/events"):
            self.heard.append(bytes(message.payload))


def measure(stage: Stage, bundle: Packed) -> Restart | None:
    """None where Mosquitto is not installed."""
    program = shutil.which("mosquitto", path=_PATHS)
    if program is None:
        return None
    with _broker(program, stage.work / "broker") as broker, _subscriber(broker.port) as subscriber:
        mount = Mount("/cam", str(clips.vtest(stage.work)), clips.VTEST_FPS)
        with serving([mount]) as server:
            cameras = [rtsp(name, f"{server.url}/cam", model=bundle.manifest.model) for name in _CAMERAS]
            url = f"mqtt://127.0.0.1:{broker.port}"
            with running(stage, [], bundle=bundle, broker_url=url, threads=2) as site:
                said = site.hearing("track")
                site.become(cameras)
                return _restarted(site, broker, subscriber, said)


def _restarted(site: Site, broker: _Broker, subscriber: _Subscriber, said: list[bytes]) -> Restart:
    for name in _CAMERAS:
        site.wait_for(name, 20)
    time.sleep(_SAVED_S)
    usual = _rate(site)
    before = len(said)
    broker.kill()
    during = _rate(site)
    away, heard = len(said) - before, len(subscriber.heard)
    broker.start()
    began_s = time.monotonic()
    while len(subscriber.heard) == heard:
        time.sleep(0.01)
    recovery_s = time.monotonic() - began_s
    time.sleep(BACK_OFF_S)
    site.become([])
    while site.views():
        time.sleep(0.1)
    told, got = _counted(said), Counter[_Event]()
    give_up_s = time.monotonic() + _BACK_S
    while told - got and time.monotonic() < give_up_s:
        time.sleep(0.5)
        told, got = _counted(said), _counted(subscriber.heard)
    lost, doubled = (told - got).total(), (got - told).total()
    return Restart(during / usual, recovery_s, told.total(), away, lost, doubled, _late(subscriber.heard))


def _rate(site: Site) -> float:
    """Pictures a second of all cameras together."""
    began, began_s = _seen(site), time.monotonic()
    time.sleep(SPAN_S)
    return (_seen(site) - began) / (time.monotonic() - began_s)


def _seen(site: Site) -> int:
    return sum(view.frames.inferred for view in site.views().values())


def _late(heard: list[bytes]) -> int:
    events = [msgspec.json.decode(body, type=_Event) for body in heard]
    late, last = 0, dict.fromkeys(_CAMERAS, 0)
    for event in events:
        late += event.sequence < last[event.camera]
        last[event.camera] = max(event.sequence, last[event.camera])
    return late


def _counted(bodies: list[bytes]) -> Counter[_Event]:
    return Counter(msgspec.json.decode(body, type=_Event) for body in list(bodies))


@contextmanager
def _broker(program: str, directory: Path) -> Iterator[_Broker]:
    broker = _Broker(program, directory)
    try:
        yield broker
    finally:
        broker.kill()


@contextmanager
def _subscriber(port: int) -> Iterator[_Subscriber]:
    subscriber = _Subscriber(port)
    try:
        yield subscriber
    finally:
        subscriber.client.loop_stop()
