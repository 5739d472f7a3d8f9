"""TLS to a real Mosquitto and to a registry that want a certificate of who connects; and all the ways it fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from contracts.errors import FoothillError
from contracts.manifest import File
from edge_node.enrol import enrol
from runtime.links.bundles.blob_http import Unreachable, http_ways
from runtime.links.bundles.engine_registry import EngineRegistry
from runtime.links.bundles.store import BundleStore
from runtime.links.http.https import HttpsConfig, listener_context
from runtime.links.http.upstream import Upstreams
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError
from runtime.links.trust.roots import open_fleet
from runtime.links.trust.tls import SYSTEM, TlsConfig, TlsFilesError, checked, client_context, told
from runtime.links.trust.tuf import HttpFetcher, TrustedFleet, TrustUnavailable
from tests.runtime.links.certificates import Authority
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

pytestmark = pytest.mark.integration

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
CONTENT = b"weights" * 5000


class Files(NamedTuple):
    """An authority, another one, and certificates of theirs."""

    ours: Authority
    theirs: Authority
    directory: Path

    def config(self, name: str = "node", *, ca: Path | None = None, days: float = 1.0) -> TlsConfig:
        cert_file, key_file = self.ours.issue(name, days=days)
        return TlsConfig(str(ca or self.ours.file), str(cert_file), str(key_file))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(Authority(tmp_path, "ours"), Authority(tmp_path, "theirs"), tmp_path)


class Broker:
    """Mosquitto with one TLS listener that requires certificates."""

    def __init__(self, files: Files, *, days: float = 1.0, host: str = "localhost") -> None:
        self._files = files
        self._cert, self._key = files.ours.issue("broker", days=days, host=host)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.number = probe.getsockname()[1]
        self.url = f"mqtts://127.0.0.1:{self.number}"

    async def start(self) -> Broker:
        settings = self._files.directory / "mosquitto.conf"
        settings.write_text(
            f"listener {self.number} 127.0.0.1\nallow_anonymous true\nrequire_certificate true\nuser root\n"
            f"cafile {self._files.ours.file}\ncertfile {self._cert}\nkeyfile {self._key}\n"
        )
        assert MOSQUITTO is not None
        self._process = await asyncio.create_subprocess_exec(
            MOSQUITTO, "-c", str(settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        await until(self._listens)
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.number)) == 0

    async def stop(self) -> None:
        self._process.terminate()
        await self._process.wait()


async def connected(port: MqttPort) -> MqttPort:
    await port.start()
    await port.wait_connected(20)
    return port


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async def wait() -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(), timeout_s)


@needs_mosquitto
async def test_messages_of_every_size_go_through_tls(files: Files) -> None:
    broker, got = await Broker(files).start(), list[bytes]()
    tls = files.config()
    reader = MqttPort(broker.url, "reader", tls=tls)
    reader.subscribe("t", lambda _, payload: got.append(payload))
    await connected(reader)
    writer = await connected(MqttPort(broker.url, "writer", tls=tls))
    sent = [os.urandom(size) for size in (0, 1, 1000, 65_536, 3_000_000, *([20_000] * 200))]
    for payload in sent:
        writer.publish("t", payload)
    await until(lambda: len(got) == len(sent))
    assert got == sent
    await writer.stop()
    await reader.stop()
    await broker.stop()


@needs_mosquitto
@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("another authority", "signed by nobody in tls.ca_file"),
        ("the system's authorities", "signed by nobody in tls.ca_file"),
        ("expired broker", "its certificate has expired"),
        ("another name", "its certificate is for another"),
        ("no certificate", "tls.cert_file"),
        ("expired client", "this client's certificate (tls.cert_file)"),
        ("a stranger's certificate", "this client's certificate (tls.cert_file)"),
        ("no such file", "tls.cert_file"),
    ],
)
async def test_a_connection_that_fails_says_what_is_wrong(
    files: Files, caplog: pytest.LogCaptureFixture, why: str, words: str
) -> None:
    stranger = [str(path) for path in files.theirs.issue("stranger")]
    tls = {
        "another authority": files.config(ca=files.theirs.file),
        "the system's authorities": SYSTEM,
        "no certificate": TlsConfig(str(files.ours.file)),
        "expired client": files.config("late", days=-1.0),
        "a stranger's certificate": TlsConfig(str(files.ours.file), *stranger),
        "no such file": TlsConfig(str(files.ours.file), "nowhere.crt", "nowhere.key"),
    }.get(why, files.config())
    host = "elsewhere.test" if why == "another name" else "localhost"
    broker = await Broker(files, days=-1.0 if why == "expired broker" else 1.0, host=host).start()
    port = MqttPort(broker.url, "node", tls=tls)
    await port.start()
    await until(lambda: "no broker at mqtts://" in caplog.text)
    assert words in caplog.text
    assert not port.connected
    await port.stop()
    await broker.stop()


@needs_mosquitto
async def test_plain_and_tls_do_not_pass_for_each_other(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    broker = await Broker(files).start()
    tls = files.config()
    port = await connected(MqttPort(broker.url, "first", tls=tls))
    await port.stop()
    plain = MqttPort(broker.url.replace("mqtts", "mqtt"), "plain", tls=tls)
    await plain.start()
    with pytest.raises(TimeoutError):
        await plain.wait_connected(0.5)
    await plain.stop()
    await broker.stop()


@needs_mosquitto
async def test_a_renewed_certificate_is_shown_at_the_next_connection(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await Broker(files).start()
    tls = files.config("node", days=-1.0)
    port = MqttPort(broker.url, "node", tls=tls)
    await port.start()
    await until(lambda: "no broker at mqtts://" in caplog.text)
    assert files.config("node") == tls, "the same files, with another certificate in them"
    await port.wait_connected(30)
    await port.stop()
    await broker.stop()


class Registry:
    """A fleet's files behind https, for those who show a certificate."""

    def __init__(self, files: Files) -> None:
        self.repository = TufRepository(files.directory / "repository")
        self.repository.set_keys({"aa" * 32: ["desired"]})
        self.repository.publish()
        self.server = FleetServer(self.repository.directory)
        self.file = File(self.server.add_blob(CONTENT), len(CONTENT))
        cert_file, key_file = files.ours.issue("registry")
        self._config = HttpsConfig(str(cert_file), str(key_file), str(files.ours.file))
        self.url = ""

    async def start(self) -> Registry:
        self.url = await self.server.start(listener_context(self._config))
        assert self.url.startswith("https://")
        return self


@pytest.fixture
async def registry(files: Files) -> AsyncIterator[Registry]:
    registry = await Registry(files).start()
    yield registry
    await registry.server.stop()
    await asyncio.sleep(0.1)  # handshakes that were broken off are no connections yet: nobody can wait for their end


async def test_contents_and_metadata_come_over_mutual_tls(registry: Registry, files: Files) -> None:
    tls = files.config()
    store = BundleStore(files.directory / "store", reserve_bytes=0)
    async with http_ways(registry.url, tls=tls)() as way:
        await way.bring(store, registry.file, lambda _: None)
    assert store.partial(registry.file.sha256).read_bytes() == CONTENT
    fetcher = HttpFetcher(tls=tls)
    trust = TrustedFleet(files.directory / "trust", registry.url, registry.repository.root_bytes, fetcher=fetcher)
    await asyncio.to_thread(trust.refresh)
    upstreams = Upstreams()
    fleet = await open_fleet(None, files.directory / "router", registry.url, upstreams, tls)
    assert await asyncio.to_thread(fleet.keys, "desired")
    await upstreams.close()


# Python 3.10 counts a transport as open whose handshake the other side broke off.
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
async def test_who_shows_no_certificate_gets_nothing_from_the_registry(registry: Registry, files: Files) -> None:
    """And goes no other way in silence: that TLS fails is told, not worked around."""
    tls = TlsConfig(str(files.ours.file))
    store = BundleStore(files.directory / "store", reserve_bytes=0)
    async with http_ways(registry.url, retry_delays_s=(), tls=tls)() as way:
        with pytest.raises(FoothillError) as refused:
            await way.bring(store, registry.file, lambda _: None)
    assert refused.value.code == "unavailable"
    trust = TrustedFleet(
        files.directory / "trust", registry.url, registry.repository.root_bytes, fetcher=HttpFetcher(tls=tls)
    )
    with pytest.raises(TrustUnavailable):
        await asyncio.to_thread(trust.refresh)
    with pytest.raises(FoothillError):
        await EngineRegistry(registry.url, dict, tls).find("sha256:" + "0" * 64)


async def _contents(registry: Registry, files: Files, tls: TlsConfig) -> None:
    store = BundleStore(files.directory / "store", reserve_bytes=0)
    async with http_ways(registry.url, retry_delays_s=(), tls=tls)() as way:
        await way.bring(store, registry.file, lambda _: None)


async def _metadata(registry: Registry, files: Files, tls: TlsConfig) -> None:
    fetcher, root = HttpFetcher(tls=tls), registry.repository.root_bytes
    await asyncio.to_thread(TrustedFleet(files.directory / "trust", registry.url, root, fetcher=fetcher).refresh)


async def _engines(registry: Registry, files: Files, tls: TlsConfig) -> None:
    await EngineRegistry(registry.url, dict, tls).find("sha256:" + "0" * 64)


async def _enrolment(registry: Registry, files: Files, tls: TlsConfig) -> None:
    await enrol(registry.url, "once", files.directory / "node", "http://127.0.0.1:8100", tls=tls)


async def _root(registry: Registry, files: Files, tls: TlsConfig) -> None:
    upstreams = Upstreams()
    try:
        await open_fleet(None, files.directory / "router", registry.url, upstreams, tls)
    finally:
        await upstreams.close()


@pytest.mark.parametrize("ask", [_contents, _metadata, _engines, _enrolment, _root])
async def test_a_registry_of_another_authority_is_not_believed(
    registry: Registry, files: Files, ask: Callable[[Registry, Files, TlsConfig], Awaitable[None]]
) -> None:
    with pytest.raises(FoothillError, match=r"signed by nobody in tls\.ca_file|CERTIFICATE_VERIFY_FAILED") as refused:
        await ask(registry, files, files.config(ca=files.theirs.file))
    assert refused.value.code == "unavailable"
    assert not isinstance(refused.value, Unreachable), "it is there, and not believed: no reason to go another way"


async def test_metadata_is_fetched_with_renewed_files(registry: Registry, files: Files) -> None:
    authorities = files.directory / "authorities.pem"
    authorities.write_bytes(files.theirs.file.read_bytes())
    fetcher, root = HttpFetcher(tls=files.config(ca=authorities)), registry.repository.root_bytes
    trust = TrustedFleet(files.directory / "trust", registry.url, root, fetcher=fetcher)
    with pytest.raises(TrustUnavailable):
        await asyncio.to_thread(trust.refresh)
    authorities.write_bytes(files.theirs.file.read_bytes() + files.ours.file.read_bytes())
    await asyncio.to_thread(trust.refresh)
    assert fetcher._pool is not None
    fetcher._pool.clear()  # the server would wait for the end of these connections


def test_files_that_cannot_be_used_are_named(files: Files) -> None:
    cert_file, key_file = files.ours.issue("locked", password=b"secret")
    other_cert, _ = files.ours.issue("other")
    wrong = [
        (TlsConfig("nowhere.pem"), "tls.ca_file nowhere.pem"),
        (TlsConfig(str(key_file)), "tls.ca_file"),
        (TlsConfig("", str(cert_file), str(key_file)), "encrypted"),
        (TlsConfig("", str(other_cert), str(files.ours.issue("third")[1])), "tls.cert_file"),
    ]
    for config, words in wrong:
        with pytest.raises(TlsFilesError, match=words):
            client_context(config)
        with pytest.raises(SettingsError, match=words):
            checked(config)
    with pytest.raises(ValueError, match="go together"):
        TlsConfig("", "only.crt")
    assert checked(SYSTEM) is SYSTEM


def test_old_tls_is_not_spoken_and_names_are_checked() -> None:
    context = client_context(SYSTEM)
    assert (context.minimum_version, context.check_hostname) == (ssl.TLSVersion.TLSv1_2, True)
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_what_is_no_matter_of_tls_is_told_as_it_is() -> None:
    assert told(ConnectionRefusedError(111, "Connection refused")) == "[Errno 111] Connection refused"
    assert told(asyncio.TimeoutError()) == "TimeoutError"
