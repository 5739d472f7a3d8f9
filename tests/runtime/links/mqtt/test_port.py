"""The MQTT port against real brokers."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from contracts.errors import FoothillError
from contracts.messages import MAX_MESSAGE_BYTES
from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort, longest_pause_s
from tests.runtime.links.mqtt.relay import Relay

pytestmark = pytest.mark.integration

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
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    program: Literal["mosquitto", "iotcore"] = request.param
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker"), program=program))
    await broker.start()
    yield broker
    await broker.stop()


class Inbox:
    """A handler that keeps what it was given, and lets a test wait for it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._news = asyncio.Event()

    def __call__(self, topic: str, payload: bytes) -> None:
        self.got.append((topic, payload))
        self._news.set()

    async def until(self, done: Callable[[], bool], timeout_s: float = 20.0) -> None:
        async def wait() -> None:
            while not done():
                self._news.clear()
                await self._news.wait()

        await asyncio.wait_for(wait(), timeout_s)

    async def count(self, n: int) -> None:
        await self.until(lambda: len(self.got) >= n)


async def connected(port: MqttPort) -> MqttPort:
    await port.start()
    await port.wait_connected(15)
    return port


async def test_what_one_publishes_the_other_gets_in_order(broker: Broker) -> None:
    inbox = Inbox()
    reader = MqttPort(broker.url, "reader")
    reader.subscribe("t/+/x", inbox)
    await connected(reader)
    writer = await connected(MqttPort(broker.url, "writer"))
    for number in range(300):
        writer.publish("t/1/x", str(number).encode())
    await inbox.count(300)
    assert [int(payload) for _, payload in inbox.got] == list(range(300))
    await writer.stop()
    await reader.stop()


async def test_retained_state_meets_later_subscribers_with_its_last_value(broker: Broker) -> None:
    writer = await connected(MqttPort(broker.url, "writer"))
    writer.publish("state/a", b"old", retain=True)
    writer.publish("state/a", b"new", retain=True)
    writer.publish("state/big", b"z" * (MAX_MESSAGE_BYTES - 1), retain=True)
    await writer.stop()
    inbox = Inbox()
    reader = await connected(MqttPort(broker.url, "reader"))
    reader.subscribe("state/#", inbox)
    await inbox.count(2)
    assert {topic: len(payload) for topic, payload in inbox.got} == {"state/a": 3, "state/big": MAX_MESSAGE_BYTES - 1}
    assert ("state/a", b"new") in inbox.got
    await reader.stop()


async def test_the_will_is_published_on_a_crash_and_not_on_a_stop(broker: Broker) -> None:
    inbox = Inbox()
    reader = MqttPort(broker.url, "reader")
    reader.subscribe("wills/+", inbox)
    await connected(reader)
    stopped = await connected(MqttPort(broker.url, "stopped", will=("wills/stopped", b"dead", True)))
    crashed = await connected(MqttPort(broker.url, "crashed", will=("wills/crashed", b"dead", True)))
    await stopped.stop()
    await crashed.kill()
    await inbox.count(1)
    assert inbox.got == [("wills/crashed", b"dead")]
    await reader.stop()


async def test_a_killed_broker_comes_back_and_everything_is_asserted_again(broker: Broker) -> None:
    inbox = Inbox()
    connects: list[int] = []
    port = MqttPort(broker.url, "owner")
    port.subscribe("mine/+", inbox)

    async def assert_state() -> None:
        connects.append(1)
        port.publish("mine/state", f"epoch {len(connects)}".encode(), retain=True)

    port.on_connect(assert_state)
    await connected(port)
    await inbox.count(1)
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    await inbox.until(lambda: ("mine/state", b"epoch 2") in inbox.got)
    assert broker.restarts == 1
    port.publish("mine/event", b"alive")
    await inbox.until(lambda: ("mine/event", b"alive") in inbox.got)
    await port.stop()


async def test_events_that_meet_a_dead_connection_before_anybody_has_noticed_are_sent_again(broker: Broker) -> None:
    inbox = Inbox()
    port = MqttPort(broker.url, "owner")
    port.subscribe("mine/+", inbox)
    await connected(port)
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    for number in range(20):
        time.sleep(0.01)  # noqa: ASYNC251 - the event loop is busy: it sees the end of the connection after these
        port.publish("mine/event", str(number).encode())
    await inbox.count(20)
    assert [int(payload) for _, payload in inbox.got] == list(range(20))
    await port.stop()


async def test_events_wait_for_the_broker_and_the_oldest_give_way(tmp_path: Path) -> None:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker")))
    await broker.start()
    port = MqttPort(broker.url, "early", queue_limit=5)
    await broker.stop()
    await port.start()
    for number in range(8):
        port.publish("events/x", str(number).encode())
    port.publish("events/state", b"stale", retain=True)
    port.publish("events/lossy", b"gone", qos=0)
    assert port.dropped == 3
    inbox = Inbox()
    port.subscribe("events/#", inbox)
    await broker.start()
    await port.wait_connected(20)
    await inbox.count(5)
    assert [payload for _, payload in inbox.got] == [b"3", b"4", b"5", b"6", b"7"]
    await port.stop()
    await broker.stop()


async def test_what_waits_for_the_broker_is_bounded_in_bytes_and_told_when_it_is_over(broker: Broker) -> None:
    over, inbox = list[tuple[int, bool]](), Inbox()
    await broker.stop()
    port = MqttPort(broker.url, "early", queue_bytes=100)

    def note(number: int, taken: bool) -> None:
        over.append((number, taken))

    port.subscribe("events/#", inbox)
    for number in range(8):
        port.publish("events/x", bytes([number]) * 30, over=partial(note, number))
    assert (port.dropped, over) == (5, [(number, False) for number in range(5)])
    await port.start()
    await broker.start()
    await inbox.count(3)
    assert [payload[0] for _, payload in inbox.got] == [5, 6, 7]
    await port.stop()
    assert over[5:] == [(5, True), (6, True), (7, True)]


async def test_a_poison_message_is_logged_once_and_never_comes_back(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []
    after = asyncio.Event()

    async def fragile(_topic: str, payload: bytes) -> None:
        seen.append(payload)
        if payload == b"poison":
            raise ValueError("cannot read this")
        after.set()

    port = MqttPort(broker.url, "fragile")
    port.subscribe("in", fragile)
    await connected(port)
    port.publish("in", b"poison")
    port.publish("in", b"good")
    await asyncio.wait_for(after.wait(), 10)
    assert seen == [b"poison", b"good"]
    assert [record.message for record in caplog.records if "failed on a message of in" in record.message]
    await port.stop()
    again = await connected(port_of(broker, "fragile"))
    assert seen == [b"poison", b"good"]
    await again.stop()


async def test_a_flood_of_bad_messages_is_a_few_lines_in_the_log(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    after = asyncio.Event()

    def strict(_topic: str, payload: bytes) -> None:
        if payload == b"last":
            after.set()
        raise FoothillError("bad_request", "This is no Status.")

    port = MqttPort(broker.url, "strict")
    port.subscribe("in", strict)
    await connected(port)
    for _ in range(200):
        port.publish("in", b"garbage")
    port.publish("in", b"last")
    await asyncio.wait_for(after.wait(), 10)
    lines = [record for record in caplog.records if "failed on a message of in" in record.message]
    assert 1 <= len(lines) <= 20
    assert all(line.exc_info is None for line in lines)
    await port.stop()


def port_of(broker: Broker, name: str) -> MqttPort:
    return MqttPort(broker.url, name)


async def test_a_slow_handler_holds_up_its_own_subscription_only(broker: Broker) -> None:
    gate = asyncio.Event()
    inbox = Inbox()

    async def slow(_topic: str, _payload: bytes) -> None:
        await gate.wait()

    port = MqttPort(broker.url, "slow")
    port.subscribe("slow", slow)
    port.subscribe("fast", inbox)
    await connected(port)
    port.publish("slow", b"")
    port.publish("fast", b"here")
    await inbox.count(1)
    gate.set()
    await port.stop()


async def test_start_returns_and_waiting_names_the_broker_when_none_is_there() -> None:
    port = MqttPort("mqtt://127.0.0.1:9", "lonely")
    await port.start()
    with pytest.raises(TimeoutError, match=r"mqtt://127\.0\.0\.1:9"):
        await port.wait_connected(0.3)
    assert not port.connected
    await port.stop()


def test_wrong_addresses_taken_filters_and_huge_payloads_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="mqtt://HOST:PORT"):
        MqttPort("http://example.org", "x")
    port = MqttPort("mqtt://localhost", "x")
    port.subscribe("a", lambda _t, _p: None)
    with pytest.raises(ValueError, match="already"):
        port.subscribe("a", lambda _t, _p: None)
    with pytest.raises(ValueError, match="over the limit"):
        port.publish("a", b"x" * (MAX_MESSAGE_BYTES + 1))


async def test_a_name_used_twice_is_told(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    first = await connected(MqttPort(broker.url, "twin"))
    second = await connected(MqttPort(broker.url, "twin"))
    third = await connected(MqttPort(broker.url, "twin"))  # by now the first two have lost a connection at least once
    assert any("twin lost" in record.message for record in caplog.records)
    for port in (first, second, third):
        await port.stop()


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
async def test_the_login_in_the_address_is_used_and_its_refusal_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert mosquitto is not None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = probe.getsockname()[1]
    passwords, settings = tmp_path / "passwords", tmp_path / "mosquitto.conf"
    making = await asyncio.create_subprocess_exec("mosquitto_passwd", "-c", "-b", str(passwords), "node", "secret")
    assert await making.wait() == 0
    passwords.chmod(0o644)
    settings.write_text(f"listener {number} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n")
    process = await asyncio.create_subprocess_exec(mosquitto, "-c", str(settings), stderr=subprocess.DEVNULL)
    try:
        known = await connected(MqttPort(f"mqtt://node:secret@127.0.0.1:{number}", "known"))
        await known.stop()
        stranger = MqttPort(f"mqtt://127.0.0.1:{number}", "stranger")
        await stranger.start()
        with pytest.raises(TimeoutError):
            await stranger.wait_connected(0.5)
        await stranger.stop()
        assert any("refused the connection" in record.message for record in caplog.records)
        assert not any("secret" in record.message for record in caplog.records)
    finally:
        process.terminate()
        await process.wait()


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def test_a_broker_that_falls_silent_is_noticed_and_left(broker: Broker) -> None:
    """Half open: the connection stands, and nothing comes."""
    relay, inbox = Relay(_port_of(broker.url)), Inbox()
    port = MqttPort(await relay.start(), "patient", keepalive_s=1)
    port.subscribe("t", inbox)
    port.on_connect(lambda: port.publish("state", b"here", retain=True))
    await connected(port)
    relay.freeze()
    lost = asyncio.ensure_future(_until(lambda: not port.connected))
    await asyncio.wait_for(lost, 20)
    relay.thaw()
    await port.wait_connected(30)
    assert relay.connections >= 2
    other = await connected(MqttPort(broker.url, "other"))
    other.publish("t", b"hello")
    await inbox.count(1)
    await other.stop()
    await port.stop()
    await relay.stop()


async def test_a_broker_that_takes_connections_and_never_answers_is_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runtime.links.mqtt.port.ANSWER_TIMEOUT_S", 0.1)
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    number = silent.sockets[0].getsockname()[1]
    port = MqttPort(f"mqtt://127.0.0.1:{number}", "hopeful")
    await port.start()
    await asyncio.wait_for(_until(lambda: f"no broker at mqtt://127.0.0.1:{number}" in caplog.text), 20)
    silent.close()
    for writer in writers:
        writer.close()
    broker = Broker(BrokerConfig(port=number, state_dir=str(tmp_path)))
    await broker.start()
    await port.wait_connected(30)
    await port.stop()
    await broker.stop()


async def test_a_broker_that_moves_to_another_address_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, here = socket.getaddrinfo, ["127.0.0.1"]

    def by_name(host: str, *more: object, **options: object) -> object:
        return resolve(here[0] if host == "broker.test" else host, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", by_name)
    first = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "first")))
    await first.start()
    number = _port_of(first.url)
    port = await connected(MqttPort(f"mqtt://broker.test:{number}", "follower"))
    await first.stop()
    second = Broker(BrokerConfig(host="127.0.0.2", port=number, state_dir=str(tmp_path / "second")))
    await second.start()
    here[0] = "127.0.0.2"
    await asyncio.wait_for(_until(lambda: not port.connected), 20)
    await port.wait_connected(30)
    await port.stop()
    await second.stop()


async def test_days_without_a_broker_are_a_line_in_the_log_and_a_bounded_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = MqttPort("mqtt://127.0.0.1:9", "alone", queue_limit=10, rng=_Hurried())
    await port.start()
    for number in range(1000):
        port.publish("event", str(number).encode())
        port.publish("state", str(number).encode(), retain=True)
        port.publish("figure", str(number).encode(), qos=0)
    await asyncio.wait_for(_until(lambda: _rounds(port) >= 20), 30)
    assert caplog.text.count("no broker at") == 1
    assert (port.dropped, len(port._events), len(port._states)) == (990, 10, 0)
    await port.stop()


class _Hurried(random.Random):
    """No pauses between attempts, but counted."""

    draws = 0

    def uniform(self, a: float, b: float) -> float:
        self.draws += 1
        return 0.0


async def _until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


def test_pauses_grow_to_seconds_and_longer_where_two_clients_of_one_name_fight() -> None:
    assert longest_pause_s(0, 0) == 0.2
    assert [longest_pause_s(n, 0) for n in (1, 2, 5, 1000)] == [0.4, 0.8, 5.0, 5.0]
    assert [longest_pause_s(0, n) for n in (1, 2, 5, 1000)] == [0.4, 0.8, 6.4, 30.0]
    assert [longest_pause_s(n, 0, 1.5) for n in (1, 2, 5, 1000)] == [0.4, 0.8, 1.5, 1.5]


async def test_two_clients_of_one_name_fight_slowly_and_quietly(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """With pauses cut out of it, a fight of fifty rounds is a few lines."""
    caplog.set_level("INFO")
    fighters = [MqttPort(broker.url, "twin", rng=_Hurried()) for _ in range(2)]
    for fighter in fighters:
        await fighter.start()
    await asyncio.wait_for(_until(lambda: all(_rounds(fighter) >= 25 for fighter in fighters)), 60)
    told = [record.getMessage() for record in caplog.records if "twin" in record.getMessage()]
    assert len(told) < 60
    assert any("does another process use this name?" in line for line in told)
    for fighter in fighters:
        await fighter.stop()


async def test_a_broker_that_goes_away_again_and_again_is_met_within_the_longest_pause(broker: Broker) -> None:
    """Connections that end with their broker are no fight between clients, however short they are."""
    port = await connected(MqttPort(broker.url, "patient", longest_pause_s=0.4))
    for _ in range(6):
        await broker.stop()
        await asyncio.wait_for(_until(lambda: not port.connected), 10)
        await asyncio.sleep(1.0)  # attempts are refused meanwhile
        await broker.start()
        await port.wait_connected(2.0)  # the pause, and what a busy machine adds
    await port.stop()


def _rounds(port: MqttPort) -> int:
    rng = port._rng
    assert isinstance(rng, _Hurried)
    return rng.draws
