"""A box that is killed while nobody takes what it says: its next life tells it, in order, under the same ids."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.ports import free_ports
from tests.edge_node.cameras.test_alone_process import Site, until

pytestmark = pytest.mark.integration

LIVES = 3


@contextmanager
def receiver(port: int, *, slow_s: float = 0.0) -> Iterator[list[dict[str, Any]]]:
    """It has heard something so long before it says so."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(slow_s)
            with contextlib.suppress(OSError):
                self.send_response(204)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield heard
    server.shutdown()
    server.server_close()


def place(message: dict[str, Any]) -> tuple[int, int]:
    return message["epoch"], message["sequence"]


def name(message: dict[str, Any]) -> tuple[str, int, int]:
    return message["camera"], *place(message)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for process in site.processes:
        process.end()


def lived_and_killed(site: Site, more: str) -> list[dict[str, Any]]:
    """What was said in these lives, with one camera more in each."""
    said: list[dict[str, Any]] = []
    for life in range(LIVES):
        process = site.start(site.write(*(f"door-{number}" for number in range(life + 1)), more=more))
        url = process.url()
        with httpx.stream("GET", f"{url}/v1/cameras/events?recent=1000", timeout=20) as events:
            lines = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
            wanted = {f"door-{number}" for number in range(life + 1)}
            while wanted:
                said.append(next(lines))
                wanted -= {said[-1]["camera"]} if said[-1]["type"] == "picture" else set()
        until(lambda: 'where="memory"} 0.0' in httpx.get(f"{url}/metrics").text)  # noqa: B023
        process.end(signal.SIGKILL)
    return said


def check_all_heard(said: list[dict[str, Any]], heard: list[dict[str, Any]]) -> None:
    """In order, and once each: nobody was killed while it was heard."""
    told = [message for message in heard if message in said]
    assert sorted(map(name, told)) == sorted(map(name, said)), "all of them, word for word"
    for camera in {message["camera"] for message in heard}:
        places = [place(message) for message in heard if message["camera"] == camera]
        assert places == sorted(set(places))


def test_a_webhook_hears_through_kills_what_was_said_while_it_was_away(site: Site) -> None:
    (port,) = free_ports(1)
    hook = f'[[webhooks]]\nurl = "http://127.0.0.1:{port}/"\n'
    said = lived_and_killed(site, hook)
    with receiver(port) as heard:
        process = site.start(site.write("door-0", more=hook))
        process.url()
        until(lambda: set(map(name, said)) <= set(map(name, heard)))
        assert process.end() == 0
    check_all_heard(said, heard)


def test_a_webhook_that_is_killed_while_it_is_heard_may_say_things_twice_and_leaves_nothing_out(site: Site) -> None:
    (port,) = free_ports(1)
    hook = f'[[webhooks]]\nurl = "http://127.0.0.1:{port}/"\n'
    with receiver(port, slow_s=0.7) as heard:
        said = lived_and_killed(site, hook)
        process = site.start(site.write("door-0", more=hook))
        process.url()
        until(lambda: set(map(name, said)) <= set(map(name, heard)))
        assert process.end() == 0
    for camera in {message["camera"] for message in said}:
        last, new = (0, 0), []
        for message in heard:
            if message["camera"] == camera and place(message) > last:
                last = place(message)
                new.append(last)
        assert {place(message) for message in said if message["camera"] == camera} <= set(new)


async def test_mqtt_subscribers_hear_through_kills_what_was_said_while_the_broker_was_away(
    site: Site, tmp_path: Path
) -> None:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker")))
    await broker.start()
    await broker.stop()
    site.head = f'broker_url = "{broker.url}"\n'
    said = [message for message in await asyncio.to_thread(lived_and_killed, site, "") if "event" in message]
    await broker.start()
    heard: list[dict[str, Any]] = []
    subscriber = MqttPort(broker.url, "subscriber")
    subscriber.subscribe("foothill/v1/cameras/shop/+/events", lambda _, body: heard.append(json.loads(body)))
    await subscriber.start()
    await subscriber.wait_connected(15)
    process = site.start(site.write("door-0"))
    with contextlib.suppress(AssertionError):
        await asyncio.to_thread(until, lambda: set(map(name, said)) <= set(map(name, heard)))
    assert set(map(name, said)) <= set(map(name, heard)), process.said
    assert await asyncio.to_thread(process.end) == 0
    check_all_heard(said, heard)
    await subscriber.stop()
    await broker.stop()
