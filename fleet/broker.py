"""The broker of a fleet without one: Mosquitto as a supervised child, or iotcore where Mosquitto is not installed.

`python -m fleet.broker [CONFIG.toml]` runs it as a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from runtime.links.http.exposure import check_exposure
from runtime.links.http.serve import configure_logging, run_loop, stop_on_signals
from runtime.links.mqtt.session import MAX_PACKET_BYTES
from runtime.links.process.ports import check_free, free_ports
from runtime.links.process.settings import SettingsError, load
from runtime.links.process.within import within

log = logging.getLogger(__name__)

Program = Literal["mosquitto", "iotcore"]

_EXTRA_PATHS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_START_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_STEADY_S = 5.0
_DATABASE = "mosquitto.db"
_LOST_FAITH = 3
"""After so many deaths right at the start the stored messages are suspected: they are set aside."""


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`port` 0 takes a free one; `program` `auto` prefers Mosquitto. `state_dir` keeps the retained messages.

    Nobody logs in: it listens beyond this machine only when `insecure`.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    state_dir: str = "state/broker"
    program: Literal["auto", "mosquitto", "iotcore"] = "auto"
    insecure: bool = False


class Broker:
    """Starts the broker, and starts it again when it dies, until `stop`.

    `table` is where its keys stand in the file that whoever starts it has read, for the words of errors.
    """

    def __init__(self, config: BrokerConfig, *, table: str = "") -> None:
        self._config = config
        self._table = table
        self._directory = Path(config.state_dir).absolute()
        self._port = config.port
        self._command: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._last_words: deque[str] = deque(maxlen=5)
        self.program: Program = "mosquitto"
        self.restarts = 0

    @property
    def url(self) -> str:
        host = self._config.host
        return f"mqtt://{'127.0.0.1' if host in ('', '0.0.0.0', '::') else host}:{self._port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns when the broker takes connections.

        Raises SettingsError for a busy port, a missing program, or an address that strangers reach.
        """
        check_exposure(
            self._config.host,
            name="broker",
            protected=False,
            insecure=self._config.insecure,
            remedy="name a broker that asks for logins in `broker_url` of the fleet manager",
        )
        self._port = _free_port(self._config.host, self._port, self._table)
        self._directory.mkdir(parents=True, exist_ok=True)
        self.program, self._command = self._prepare()
        self._process = await self._launch()
        await self._wait_ready(self._process)
        self._watch = asyncio.ensure_future(self._supervise(self._process))
        self._watch.add_done_callback(_tell_end)

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._process is not None:
            await _terminate(self._process)

    def _prepare(self) -> tuple[Program, list[str]]:
        wanted = self._config.program
        mosquitto = _find_mosquitto() if wanted != "iotcore" else None
        if mosquitto is not None:
            path = self._directory / "mosquitto.conf"
            path.write_text(mosquitto_config(self._config.host, self._port, self._directory))
            return "mosquitto", [mosquitto, "-c", str(path)]
        if wanted == "mosquitto" or importlib.util.find_spec("iotcore") is None:
            raise SettingsError(
                "broker: no MQTT broker is installed. Install Mosquitto (`apt install mosquitto`) or the Python "
                "package iotcore, or name a running MQTT 5 broker in `broker_url`."
            )
        if wanted == "auto":
            log.warning("broker: mosquitto is not installed; iotcore serves instead and forgets all when it restarts")
        path = self._directory / "iotcore.toml"
        path.write_text(iotcore_config(self._config.host, self._port))
        return "iotcore", [sys.executable, "-I", "-m", "iotcore", "--log-level", "CRITICAL", "--config", str(path)]

    async def _launch(self) -> asyncio.subprocess.Process:
        leash = Path(__file__).with_name("leash.py")
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(leash), str(os.getpid())),
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        listening = asyncio.ensure_future(_wait_listening(self._config.host, self._port))
        ended = asyncio.ensure_future(self._listen_to(process))
        try:
            await asyncio.wait([listening, ended], timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and not ended.done():
                return
            await _terminate(process)
            said = "; ".join(self._last_words) or "it said nothing"
            raise SettingsError(f"broker: {self.program} did not start on port {self._port}: {said}.")
        finally:
            for task in (listening, ended):
                task.cancel()

    async def _supervise(self, process: asyncio.subprocess.Process) -> None:
        quick_deaths = 0
        while True:
            started_s = time.monotonic()
            await self._listen_to(process)
            code = await process.wait()
            quick_deaths = 0 if time.monotonic() - started_s > _STEADY_S else quick_deaths + 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**quick_deaths)
            said = "; ".join(self._last_words)
            log.error("broker: %s ended with code %d (%s); again in %.1f s", self.program, code, said, pause_s)
            if quick_deaths == _LOST_FAITH and "in use" not in said:
                self._set_database_aside()
            await asyncio.sleep(pause_s)
            self._process = process = await self._launch()
            self.restarts += 1

    async def _listen_to(self, process: asyncio.subprocess.Process) -> None:
        """Keeps what the child says, until it says no more."""
        if process.stdout is None:
            return
        async for line in process.stdout:
            self._last_words.append(line.decode(errors="replace").strip())
            log.debug("broker: %s", self._last_words[-1])

    def _set_database_aside(self) -> None:
        database = self._directory / _DATABASE
        if database.exists():
            os.replace(database, database.with_suffix(".bad"))
            log.error("broker: the stored messages stop it from starting: moved to %s", database.with_suffix(".bad"))


async def run(config: BrokerConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """The broker as a process of its own, until SIGTERM or SIGINT."""
    stopping = stop_on_signals()
    broker = Broker(config)
    await broker.start()
    try:
        log.info("broker (%s) listening on %s", broker.program, broker.url)
        if ready is not None:
            ready(broker.url)
        await stopping.wait()
    finally:
        await broker.stop()


def mosquitto_config(host: str, port: int, directory: Path) -> str:
    """One plain listener. Saves once a second what is retained: its owners re-assert what the last second loses."""
    lines = {
        "listener": f"{port} {host}",
        "allow_anonymous": "true",
        "persistence": "true",
        "persistence_location": f"{directory}/",
        "persistence_file": _DATABASE,
        "autosave_interval": "1",
        "max_packet_size": str(MAX_PACKET_BYTES),
        "max_inflight_messages": "64",
        "max_queued_messages": "100000",  # a new subscriber is sent every retained message at once
        "set_tcp_nodelay": "true",
        "connection_messages": "false",
        "log_dest": "stderr",
        "log_timestamp": "false",
    }
    if os.geteuid() == 0:
        lines["user"] = "root"  # changing the user would take the leash off
    return "".join(f"{key} {value}\n" for key, value in lines.items()) + "log_type error\nlog_type warning\n"


def iotcore_config(host: str, port: int) -> str:
    """rumqttd's TOML with one MQTT 5 listener."""
    address = msgspec.json.encode(f"{host}:{port}").decode()
    return f"""id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "mqtt5"
listen = {address}
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {MAX_PACKET_BYTES}
max_inflight_count = 100
"""


def _find_mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), *_EXTRA_PATHS)))


def _free_port(host: str, port: int, table: str) -> int:
    """The port, or a free one for 0; raises SettingsError when it is taken or the host is not ours."""
    try:
        if port == 0:
            return free_ports(1, host)[0]
        check_free(host, port)
        return port
    except OSError as error:
        where = f"in {table} " if table else ""
        raise SettingsError(
            f"broker: cannot listen on {host}:{port} ({error.strerror}). Stop what holds the port "
            f"(`ss -ltnp 'sport = :{port}'` shows it), or set another `port` or `host` {where}of the configuration."
        ) from error


async def _wait_listening(host: str, port: int) -> None:
    target = "127.0.0.1" if host in ("", "0.0.0.0") else host
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(target, port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.02)


def _tell_end(watch: asyncio.Task[None]) -> None:
    if not watch.cancelled() and watch.exception() is not None:
        log.critical("broker: supervision failed: restart this process", exc_info=watch.exception())


async def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await within(process.wait(), _STOP_TIMEOUT_S)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()


def main() -> None:
    configure_logging()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None

    async def life() -> None:
        await run(load(path, BrokerConfig))

    run_loop(life())


if __name__ == "__main__":
    main()
