"""The control plane: from a signed desired document to the node's report of it, beside an echo through paho alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import msgspec
import numpy as np
from paho.mqtt.client import Client, MQTTMessage

from benchmarks.follower import ECHO_BACK, ECHO_OUT, connect
from benchmarks.machine import cpu_s, pin
from benchmarks.report import Report, report
from benchmarks.rounds import Case, Profile, Ratio, Run, interleaved, middle, percentile_ms, ratio
from benchmarks.stage import Stage
from contracts import topics
from contracts.messages import Desired, encode
from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures

NAME = "mqtt"
OUTSTANDING = (1, 32)
DESIRED, PAHO = "desired to reported", "paho-mqtt, echo"

_MANIFEST = bytes(2048)
_CONNECTED_WITHIN_S = 10.0
_WITHIN_S = 60.0

NOTES = (
    "Retained, QoS 1, through the supervised broker on one core; both ends share the other. The document carries a "
    "manifest of 2 KB; the far end checks its signature and reports. The echo sends the same payload there and back, "
    "with nothing checked. `of paho`: rounds a second over those of the echo, `p50 of paho`: the same of the median.",
    "What a node does before it reports (fetch, verify, load, golden test) is not in it.",
)


class MqttRow(msgspec.Struct, frozen=True):
    """`broker_cpu_us`: CPU time of the broker for one round trip."""

    case: str
    outstanding: int
    of_paho: Ratio
    p50_of_paho: Ratio
    round_trips_per_s: float
    p50_ms: float
    p99_ms: float
    broker_cpu_us: float


class _Question(NamedTuple):
    case: str
    outstanding: int


class _Rally:
    """A number of messages under way: each that comes back is sent again until time is up. Lives on the event loop."""

    def __init__(self, send: Callable[[int], None]) -> None:
        self._send = send
        self._sent_s: dict[int, float] = {}
        self._until_s = 0.0
        self._latencies_ms: list[float] = []
        self._over = asyncio.Event()

    def back(self, number: int) -> None:
        """Retained messages of an earlier run come back unasked: they are not counted."""
        sent_s, now_s = self._sent_s.pop(number, None), time.perf_counter()
        if sent_s is None:
            return
        self._latencies_ms.append((now_s - sent_s) * 1000.0)
        if now_s < self._until_s:
            self._hit(number)
        elif not self._sent_s:
            self._over.set()

    async def play(self, outstanding: int, seconds: float, broker: int) -> Run:
        self._latencies_ms = []
        self._over.clear()
        before_s, before_cpu_s, started_s = cpu_s(broker), time.process_time(), time.perf_counter()
        self._until_s = started_s + seconds
        for number in range(outstanding):
            self._hit(number)
        await asyncio.wait_for(self._over.wait(), seconds + _WITHIN_S)
        wall_s, client_s = time.perf_counter() - started_s, time.process_time() - before_cpu_s
        return Run(wall_s, cpu_s(broker) - before_s, client_s, np.array(self._latencies_ms))

    def _hit(self, number: int) -> None:
        self._sent_s[number] = time.perf_counter()
        self._send(number)


async def measure(stage: Stage, profile: Profile) -> Report:
    broker = Broker(BrokerConfig(port=0, state_dir=str(stage.work / "broker")))
    async with AsyncExitStack() as closing:
        await broker.start()
        closing.push_async_callback(broker.stop)
        pid = broker.pid or 0
        pin(pid, stage.cores.server)
        stage.pids.append(pid)
        private = signatures.generate()
        public = signatures.public_key(private)
        stage.start("follower", "benchmarks.follower", broker.url, public, core=stage.cores.client)
        rallies = {DESIRED: await _desired(closing, broker.url, private), PAHO: _paho(closing, broker.url, private)}
        cases = {
            _Question(case, outstanding): _playing(rally, outstanding, pid)
            for case, rally in rallies.items()
            for outstanding in OUTSTANDING
        }
        rounds = await interleaved(cases, profile, stage.pids)
    return report(NAME, [_row(question, rounds.runs) for question in cases], NOTES, [rounds])


async def _desired(closing: AsyncExitStack, broker_url: str, private: bytes) -> _Rally:
    port = MqttPort(broker_url, "bench-fleet")

    def send(number: int) -> None:
        port.publish(topics.node_topic(f"n{number}", "desired"), _document(number, private), retain=True)

    rally = _Rally(send)

    def on_reported(topic: str, _: bytes) -> None:
        rally.back(int(topics.node_of(topic)[1:]))

    port.subscribe(topics.every_node("reported"), on_reported)
    await port.start()
    closing.push_async_callback(port.stop)
    await port.wait_connected(_CONNECTED_WITHIN_S)
    return rally


def _paho(closing: AsyncExitStack, broker_url: str, private: bytes) -> _Rally:
    loop = asyncio.get_running_loop()

    def on_back(_client: Client, _: object, message: MQTTMessage) -> None:
        loop.call_soon_threadsafe(rally.back, int(message.topic.rpartition("/")[2]))

    client = connect(broker_url, f"{ECHO_BACK}/+", on_back)
    closing.callback(client.loop_stop)
    closing.callback(client.disconnect)

    def send(number: int) -> None:
        client.publish(f"{ECHO_OUT}/{number}", _document(number, private), qos=1, retain=True)

    rally = _Rally(send)
    return rally


def _document(number: int, private: bytes) -> bytes:
    now_s = time.time()
    desired = Desired(f"n{number}", int(now_s * 1e6), now_s, now_s + 3600.0, {"digits": "sha256:" + "0" * 64})
    return encode(signatures.sign(desired, private, {"sha256:" + "0" * 64: _MANIFEST}))


def _playing(rally: _Rally, outstanding: int, broker: int) -> Case:
    async def case(seconds: float) -> Run:
        return await rally.play(outstanding, seconds, broker)

    return case


def _row(question: _Question, runs: Mapping[_Question, Sequence[Run]]) -> MqttRow:
    own, paho = runs[question], runs[_Question(PAHO, question.outstanding)]
    return MqttRow(
        case=question.case,
        outstanding=question.outstanding,
        of_paho=ratio(own, paho, lambda run: run.rate),
        p50_of_paho=ratio(own, paho, lambda run: run.p50_ms),
        round_trips_per_s=middle(own, lambda run: run.rate),
        p50_ms=percentile_ms(own, 50),
        p99_ms=percentile_ms(own, 99),
        broker_cpu_us=middle(own, lambda run: run.cpu_us),
    )
