"""The fleet manager as a process: it starts, it stops cleanly, it says what is wrong, it leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import fleet
from fleet.broker import Broker
from tests.fleet.scripted import Operator, until, write_bundle

pytestmark = pytest.mark.integration

ROOT = Path(str(fleet.__file__)).parent.parent


def settings(tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(
        f'port = 0\nstate_dir = "{tmp_path}/state"\n{more}\n[broker]\nport = 0\nstate_dir = "{tmp_path}/broker"\n'
    )
    return path


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet", str(path)), cwd=ROOT, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    line = b""
    while b"fleet listening on http://" not in line:
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        assert line, "it ended"
    try:
        yield process, line.decode().strip().rsplit(" ", 1)[1]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_it_serves_with_a_broker_of_its_own_and_stops_without_a_trace(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with running(settings(tmp_path)) as (process, url):
        token = (tmp_path / "state" / "admin.token").read_text().strip()
        operator = Operator(url, token, session)
        digest = write_bundle(tmp_path / "bundle", "1")
        await operator.publish(tmp_path / "bundle")
        node = await (await operator.enrol("tokyo")).start()
        rollout = await operator.start("digits-edge@1")
        await operator.wait(rollout["id"], "completed")
        assert node.serving == {"digits": digest}
        await node.stop()
        (broker,) = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 15) == 0
        assert not is_alive(broker)


async def test_killed_hard_it_takes_its_broker_along_and_goes_on_after_a_restart(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    path = settings(tmp_path)
    write_bundle(tmp_path / "bundle", "1")
    async with running(path) as (process, url):
        token = (tmp_path / "state" / "admin.token").read_text().strip()
        await Operator(url, token, session).publish(tmp_path / "bundle")
        await Operator(url, token, session).enrol("tokyo")
        (broker,) = children_of(process.pid)
        process.kill()
        await until(lambda: not is_alive(broker), what="the broker's end")
    async with running(path) as (_, url):
        operator = Operator(url, token, session)
        assert [node["node"] for node in await operator.call("GET", "/v1/nodes")] == ["tokyo"]
        assert [model["name"] for model in await operator.call("GET", "/v1/models")] == ["digits-edge"]


async def test_killed_hard_in_the_middle_of_a_rollout_it_ends_it_after_a_restart(
    tmp_path: Path, session: aiohttp.ClientSession, broker: Broker
) -> None:
    path = settings(tmp_path, f'broker_url = "{broker.url}"')
    for version in ("1", "2"):
        write_bundle(tmp_path / version, version)
    async with running(path) as (process, url):
        operator = Operator(url, (tmp_path / "state" / "admin.token").read_text().strip(), session)
        for version in ("1", "2"):
            await operator.publish(tmp_path / version)
        nodes = [await (await operator.enrol(name)).start() for name in ("ashburn", "tokyo")]
        first = await operator.start("digits-edge@1")
        await operator.wait(first["id"], "completed")
        nodes[0].silent = True
        second = await operator.start("digits-edge@2", nodes=["ashburn", "tokyo"])
        process.kill()
        await process.wait()
    nodes[0].silent = False
    nodes[0].report()
    async with running(path) as (_, url):
        operator.url = url
        await operator.wait(second["id"], "judging")
        for number in range(200):
            nodes[0].audit(second["digest"], f"r{number}", agree=False)
        done = await operator.wait(second["id"], "rolled-back")
        assert done["reverted"] == ["ashburn"]
        assert {node.serving["digits"] for node in nodes} == {first["digest"]}
        for node in nodes:
            await node.stop()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "Did you mean `port`"),
        ("port = 'x'", "port"),
        ("port = ", "not TOML"),
        ("broker_url = 'http://x'", "mqtt://HOST:PORT"),
        ("[gate]\nalpha = 2.0", "alpha"),
    ],
)
async def test_a_wrong_configuration_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(f'state_dir = "{tmp_path}/state"\n{text}\n' if "port =" not in text else text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet", str(path)), cwd=ROOT, stderr=subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2, stderr.decode()
    assert told in stderr.decode().splitlines()[-1]


async def refusal(path: Path) -> str:
    """The last line of a fleet manager that does not start."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet", str(path)), cwd=ROOT, stderr=subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    return stderr.decode().splitlines()[-1]


async def test_a_busy_port_is_told_and_which_key_sets_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        path, taken = settings(tmp_path), holder.getsockname()[1]
        free = path.read_text()
        path.write_text(free.replace("port = 0", f"port = {taken}", 1))
        assert "already in use" in await refusal(path)
        path.write_text(free.replace("[broker]\nport = 0", f"[broker]\nport = {taken}"))
        assert "another `port` or `host` in [broker] of the configuration" in await refusal(path)


async def test_two_fleet_managers_on_one_state_directory_are_refused(tmp_path: Path) -> None:
    path = settings(tmp_path)
    async with running(path):
        assert "Another process runs in state_dir" in await refusal(path)
