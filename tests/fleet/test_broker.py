"""The supervised broker: it comes back, it goes with its parent, it says why it cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet import broker as broker_file
from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError

pytestmark = pytest.mark.integration

ROOT = Path(broker_file.__file__).parent.parent


def config(tmp_path: Path, **changes: object) -> BrokerConfig:
    return BrokerConfig(**{"port": 0, "state_dir": str(tmp_path / "broker"), **changes})  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    """A zombie (killed, not yet reaped by init) counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        await asyncio.sleep(0.02)


async def listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_a_killed_broker_is_started_again_on_the_same_port(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    await broker.start()
    url, first = broker.url, broker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    port = MqttPort(url, "probe")
    await port.start()
    await until(lambda: broker.restarts > 0)
    await port.wait_connected(10)
    assert broker.url == url
    assert broker.pid != first
    await port.stop()
    await broker.stop()
    assert not await listening(int(url.rsplit(":", 1)[1]))


async def test_retained_messages_survive_a_kill_after_a_second(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    await broker.start()
    if broker.program != "mosquitto":
        await broker.stop()
        pytest.skip("mosquitto is not installed; iotcore keeps nothing over a restart")
    port = MqttPort(broker.url, "writer")
    await port.start()
    await port.wait_connected(10)
    port.publish("state/x", b"kept", retain=True)
    await port.stop()
    database = tmp_path / "broker" / "mosquitto.db"
    await until(lambda: database.exists() and b"state/x" in database.read_bytes())
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGKILL)
    arrived = asyncio.Event()
    reader = MqttPort(broker.url, "reader")
    reader.subscribe("state/x", lambda _topic, payload: arrived.set() if payload == b"kept" else None)
    await reader.start()
    await asyncio.wait_for(arrived.wait(), 15)
    await reader.stop()
    await broker.stop()


async def test_a_rotten_database_is_set_aside(tmp_path: Path) -> None:
    broker = Broker(config(tmp_path))
    await broker.start()
    if broker.program != "mosquitto":
        await broker.stop()
        pytest.skip("mosquitto is not installed")
    database = tmp_path / "broker" / "mosquitto.db"
    await until(database.exists)
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    database.write_bytes(b"rotten" * 100)
    os.kill(broker.pid, signal.SIGKILL)
    port = MqttPort(broker.url, "probe")
    await port.start()
    await port.wait_connected(20)
    assert database.with_suffix(".bad").exists()
    await port.stop()
    await broker.stop()


@pytest.mark.parametrize("program", ["auto", "iotcore"])
async def test_the_broker_dies_with_a_killed_parent(tmp_path: Path, program: str) -> None:
    settings = tmp_path / "broker.toml"
    settings.write_text(f'port = 0\nstate_dir = "{tmp_path}/broker"\nprogram = "{program}"\n')
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fleet.broker", str(settings)), cwd=ROOT, stderr=subprocess.PIPE
    )
    assert parent.stderr is not None
    line = b""
    while b"listening on mqtt://" not in line:
        line = await parent.stderr.readline()
        assert line, "the broker process ended"
    port = int(line.decode().strip().rsplit(":", 1)[1])
    children = children_of(parent.pid)
    assert len(children) == 1
    assert await listening(port)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(children[0]))


async def test_a_busy_port_is_told_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{taken}.*another `port`"):
            await Broker(config(tmp_path, port=taken)).start()


async def test_no_program_at_all_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_file, "_EXTRA_PATHS", ())
    with pytest.raises(SettingsError, match="apt install mosquitto"):
        await Broker(config(tmp_path, program="mosquitto")).start()


async def test_without_mosquitto_the_fallback_serves_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_file, "_EXTRA_PATHS", ())
    broker = Broker(config(tmp_path))
    await broker.start()
    assert broker.program == "iotcore"
    assert any("mosquitto is not installed" in record.message for record in caplog.records)
    await broker.stop()


async def test_a_listener_off_the_loopback_takes_an_operator_who_insists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for host in ("0.0.0.0", "::", "", "192.0.2.7", "broker.example"):
        with pytest.raises(SettingsError, match="--insecure"):
            await Broker(config(tmp_path, host=host)).start()
    broker = Broker(config(tmp_path, host="0.0.0.0", insecure=True))
    await broker.start()
    assert broker.url.startswith("mqtt://127.0.0.1:")
    assert any("without authentication" in record.message for record in caplog.records)
    await broker.stop()
