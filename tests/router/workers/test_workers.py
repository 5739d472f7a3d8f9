"""A router of several processes, as its callers and whoever runs it meet it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from contracts import headers, topics
from contracts.messages import Status, encode
from fleet.broker import Broker, BrokerConfig
from foothill import toml
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures
from tests.router.rig import HOP_KEY, Server, Start
from tests.router.test_selection import identity, reported
from tests.runtime.links.certificates import Authority
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository
from tests.runtime.raw_caller import RawCaller, post, until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
PATIENCE_S = 20
FLEET_KEY = signatures.generate()


class Running:
    """`python -m router` with two workers. `lines` is what it has logged so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._said = asyncio.Event()

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            self._said.set()

    async def said(self, words: str) -> str:
        """The first line with these words."""

        async def wait() -> str:
            while True:
                found = next((line for line in self.lines if words in line), None)
                if found is not None:
                    return found
                self._said.clear()
                await self._said.wait()

        return await asyncio.wait_for(wait(), PATIENCE_S)

    async def listens(self) -> str:
        """Where; "" for one that has ended instead."""
        ending = asyncio.create_task(self.process.wait())
        listening = asyncio.create_task(self.said("listening on"))
        await asyncio.wait([ending, listening], return_when=asyncio.FIRST_COMPLETED)
        listening.cancel() if ending.done() else ending.cancel()
        return " " if ending.done() else listening.result()

    def workers(self) -> list[int]:
        """Their process ids."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


Run = Callable[..., Awaitable[Running]]


async def all_told(
    session: aiohttp.ClientSession, router: Running, right: Callable[[dict[str, Any]], bool], path: str = "/healthz"
) -> None:
    """Until whoever is asked says what is right. Some may be starting again meanwhile."""

    async def ask() -> None:
        rightly = 0
        while rightly < 12:
            try:
                async with session.get(f"{router.url}{path}") as response:
                    rightly = rightly + 1 if right(await response.json()) else 0
            except aiohttp.ClientError:
                rightly = 0
            await asyncio.sleep(0.01)

    await asyncio.wait_for(ask(), PATIENCE_S)


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Starts a router: `await run(node_url, key=value…)`."""
    key = tmp_path / "hop.key"
    key.write_text(HOP_KEY.hex())
    async with AsyncExitStack() as closing:

        async def started(node: str, **changed: Any) -> Running:
            place = {"region": "eu-central", "lat": 50.1, "lon": 8.7, "models": ["digits"]}
            config = {
                "port": 0,
                "workers": 2,
                "broker_url": "",
                "cloud_urls": [],
                "hop_key_file": str(key),
                "nodes": [{"name": "edge-fra", "url": node, **place}] if node else [],
                **changed,
            }
            path = tmp_path / "router.toml"
            path.write_text(toml.dumps(config))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "router", str(path)), stderr=asyncio.subprocess.PIPE, cwd=ROOT
            )
            running = Running(process)
            listening = asyncio.create_task(running.listen())
            closing.push_async_callback(_end, process, listening)
            running.url = (await running.listens()).rsplit(" ", 1)[1].strip()
            return running

        yield started


async def _end(process: asyncio.subprocess.Process, listening: asyncio.Task[None]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) in (0, 2, -signal.SIGKILL)
    await listening


@pytest.fixture
async def edge(start: Start) -> Server:
    made = await start("edge-fra")
    made.confidence = 0.9
    return made


async def predict(session: aiohttp.ClientSession, url: str, **told: str) -> aiohttp.ClientResponse:
    """Each by a connection of its own, so that any worker may get it."""
    given = {"Content-Type": "image/png", "Connection": "close", **told}
    async with session.post(f"{url}/v1/predict/digits", data=b"x", headers=given) as response:
        await response.read()
        return response


async def samples(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    async with session.get(f"{url}/metrics") as response:
        text = await response.text()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def test_all_of_them_answer_and_are_counted_as_one(run: Run, edge: Server) -> None:
    router = await run(edge.url)
    async with aiohttp.ClientSession() as session:
        for _ in range(40):
            assert (await predict(session, router.url)).status == 200
        counted = await samples(session, router.url)
        answered = [value for name, value in counted.items() if name.startswith("foothill_requests_total{")]
        assert sum(answered) == 40
        assert counted['foothill_router_nodes{state="online"}'] == 1
        assert counted["process_open_fds"] > 3 * 5
    assert len(router.workers()) == 2


async def test_one_that_is_killed_takes_its_own_connections_alone_and_is_started_again(run: Run, edge: Server) -> None:
    router = await run(edge.url)
    callers = [await RawCaller.connect(router.url) for _ in range(32)]
    for caller in callers:
        await caller.send(post("/v1/predict/digits", b"x"))
        assert (await caller.answer()).status == 200
    first = router.workers()
    os.kill(first[0], signal.SIGKILL)
    await router.said("another one is started")
    lived = 0
    for caller in callers:
        await caller.send(post("/v1/predict/digits", b"x"))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            lived += (await caller.answer()).status == 200
        await caller.close()
    assert 0 < lived < len(callers)
    await until(lambda: len(router.workers()) == 2 and first[0] not in router.workers())
    async with aiohttp.ClientSession() as session:
        for _ in range(10):
            assert (await predict(session, router.url)).status == 200
    assert first[1] in router.workers()


async def test_they_do_not_outlive_the_control_process(run: Run, edge: Server) -> None:
    router = await run(edge.url)
    workers = router.workers()
    router.process.kill()
    await router.process.wait()

    await until(lambda: not any(_runs(pid) for pid in workers))


async def test_a_late_answer_is_found_by_whichever_worker_is_asked(run: Run, edge: Server, start: Start) -> None:
    cloud = await start("cloud", tier="cloud", answer="7")
    cloud.status = 503
    router = await run(edge.url, cloud_urls=[cloud.url])
    edge.confidence = None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        told = await predict(
            session,
            router.url,
            **{headers.REQUEST_ID: "r-1", headers.ESCALATION: "always", headers.DEADLINE_MS: "5000"},
        )
        assert (told.status, told.headers[headers.DEGRADED], told.headers[headers.LATE]) == (200, "true", "spooled")
        for _ in range(8):
            async with session.get(f"{router.url}/v1/results/r-1") as waiting:
                assert waiting.status == 202
        cloud.status = 200
        events = {"Accept": "text/event-stream"}
        async with session.get(f"{router.url}/v1/results/r-1", headers=events) as stream:
            text = await asyncio.wait_for(stream.text(), PATIENCE_S)
        assert "event: result" in text
        for _ in range(8):
            async with session.get(f"{router.url}/v1/results/r-1") as answer:
                assert (answer.status, (await answer.json())["label"]) == (200, "7")


async def test_one_id_is_promised_once_by_all_of_them(run: Run, edge: Server, start: Start) -> None:
    cloud = await start("cloud", tier="cloud", answer="7")
    cloud.status = 503
    router = await run(edge.url, cloud_urls=[cloud.url])
    asked = {headers.REQUEST_ID: "r-1", headers.ESCALATION: "always"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        told = [(await predict(session, router.url, **asked)).headers.get(headers.LATE) for _ in range(12)]
    assert told == ["spooled", *11 * [None]]


async def test_nothing_is_promised_where_nobody_keeps_it_and_the_answer_is_in_time(
    run: Run, edge: Server, start: Start
) -> None:
    cloud = await start("cloud", tier="cloud", answer="7")
    cloud.status = 503
    router = await run(edge.url, cloud_urls=[cloud.url])
    asked = {headers.ESCALATION: "always", headers.DEADLINE_MS: "1500"}
    async with aiohttp.ClientSession() as session:
        await predict(session, router.url)
        router.process.send_signal(signal.SIGSTOP)
        try:
            told = await predict(session, router.url, **asked)
        finally:
            router.process.send_signal(signal.SIGCONT)
        assert (told.status, told.headers[headers.DEGRADED], told.headers.get(headers.LATE)) == (200, "true", None)
        assert (await predict(session, router.url, **asked)).headers[headers.LATE] == "spooled"


async def test_a_tenants_limit_holds_for_all_of_them_together(run: Run, edge: Server, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    sha256 = hashlib.sha256(b"s3cret").hexdigest()
    tokens.write_text(f'[[tokens]]\nname = "kiosk"\nsha256 = "{sha256}"\nrequests_per_s = 5\n')
    router = await run(edge.url, tokens_file=str(tokens))
    async with aiohttp.ClientSession() as session:
        assert (await predict(session, router.url)).status == 401
        bearer = {"Authorization": "Bearer s3cret"}
        told = await asyncio.gather(*(predict(session, router.url, **bearer) for _ in range(24)))
        statuses = [response.status for response in told]
        assert 5 <= statuses.count(200) <= 7
        assert statuses.count(200) + statuses.count(429) == 24
        assert all("Retry-After" in response.headers for response in told if response.status == 429)


async def test_a_tenants_budget_is_one_for_all_of_them(run: Run, edge: Server, start: Start, tmp_path: Path) -> None:
    cloud = await start("cloud", tier="cloud", answer="7")
    tokens = tmp_path / "tokens.toml"
    sha256 = hashlib.sha256(b"s3cret").hexdigest()
    tokens.write_text(f'[[tokens]]\nname = "kiosk"\nsha256 = "{sha256}"\nescalations_per_day = 3\n')
    state = str(tmp_path / "state")
    router = await run(edge.url, cloud_urls=[cloud.url], tokens_file=str(tokens), state_dir=state)
    asked = {"Authorization": "Bearer s3cret", headers.ESCALATION: "always"}
    async with aiohttp.ClientSession() as session:
        tiers = [(await predict(session, router.url, **asked)).headers[headers.TIER] for _ in range(10)]
    assert (tiers.count("cloud"), tiers.count("edge")) == (3, 7)


async def test_what_probes_find_reaches_them_all(run: Run, edge: Server) -> None:
    router = await run(edge.url, probe_interval_s=0.2)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

        async def all_say(state: str) -> None:
            await all_told(session, router, lambda told: told["nodes"] == {state: 1})

        await all_say("online")
        edge.status = 503
        await all_say("offline")
        for pid in router.workers():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(router.workers()) == 2)
        await asyncio.sleep(2.0)
        await all_say("offline")
        edge.status = 200
        await all_say("online")


async def test_what_a_caller_measured_counts_at_every_worker(run: Run, edge: Server) -> None:
    router = await run(edge.url)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for _ in range(3):
            asked = {"model": "digits", "measured_ms": {"edge-fra": 33.0}}
            async with session.post(f"{router.url}/v1/route", json=asked) as response:
                assert response.status == 200, await response.text()

        def measured(told: dict[str, Any]) -> bool:
            (candidate,) = told["candidates"]
            return (candidate.get("measured_rtt_ms"), candidate.get("samples")) == (33.0, 3)

        await all_told(session, router, measured, "/v1/explain?model=digits")


async def test_what_the_fleet_says_reaches_them_all_those_too_that_start_later(
    run: Run, edge: Server, tmp_path: Path
) -> None:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker")))
    await broker.start()
    repository = TufRepository(tmp_path / "repository")
    repository.set_keys({signatures.public_key(FLEET_KEY): ["identity", "desired", "certificate"]})
    repository.publish()
    fleet, says = FleetServer(repository.directory), MqttPort(broker.url, "says")
    await says.start()
    await says.wait_connected(10)
    state = str(tmp_path / "state")
    router = await run("", broker_url=broker.url, fleet_url=await fleet.start(), state_dir=state)
    node = msgspec.structs.replace(identity("edge-fra"), url=edge.url)
    signed = encode(signatures.sign(node, FLEET_KEY))
    says.publish(topics.node_topic("edge-fra", "identity"), signed, retain=True)
    says.publish(topics.node_topic("edge-fra", "status"), encode(Status("edge-fra", 1, "online")), retain=True)
    says.publish(topics.node_topic("edge-fra", "reported"), encode(reported("edge-fra", "digits")), retain=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

        async def known_to_all() -> None:
            await all_told(session, router, lambda told: (told["nodes"], told["broker"]) == ({"online": 1}, True))

        await known_to_all()
        first = router.workers()
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: len(router.workers()) == 2 and not {*first} & {*router.workers()})
        await asyncio.sleep(2.0)
        await known_to_all()
        assert (await predict(session, router.url)).status == 200
        await broker.stop()

        await all_told(session, router, lambda told: told["broker"] is False)
        assert (await predict(session, router.url)).status == 200
    await says.stop()
    await fleet.stop()


async def test_a_port_that_another_router_has_is_refused(run: Run, edge: Server) -> None:
    router = await run(edge.url)
    second = await run(edge.url, port=int(router.url.rsplit(":", 1)[1]))
    assert await asyncio.wait_for(second.process.wait(), PATIENCE_S) == 2
    assert "is already in use" in "".join(second.lines)


async def test_they_speak_tls(run: Run, edge: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("router")
    router = await run(edge.url, https={"cert_file": str(certificate), "key_file": str(key)})
    assert router.url.startswith("https://")
    trust = ssl.create_default_context(cafile=str(authority.file))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, force_close=True)) as session:
        for _ in range(6):
            assert (await predict(session, router.url)).status == 200


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


async def test_workers_write_one_access_log_and_reopen_it_together(run: Run, edge: Server, tmp_path: Path) -> None:
    path, moved = tmp_path / "access.json", tmp_path / "access.json.1"
    router = await run(edge.url, access_log={"path": str(path)})

    async def ask(count: int) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(count):
                assert (await predict(session, router.url)).status == 200
        await until(lambda: path.exists() and path.read_bytes().count(b"\n") == count)

    await ask(20)
    path.rename(moved)
    router.process.send_signal(signal.SIGHUP)
    for _ in range(2):
        await router.said("was reopened")
        router.lines.remove(await router.said("was reopened"))
    await ask(20)
    for log in (path, moved):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["status"] for line in lines] == [200] * 20
    assert len(router.workers()) == 2
