"""The cloud tier over a real fleet's files: comes up when it can, answers hops, and says what is in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import msgspec
import numpy as np
import pytest

from cloud_tier.__main__ import build
from cloud_tier.config import Config
from contracts.manifest import FILE
from contracts.predictions import Classification, Prediction
from contracts.timing import parse_server_timing
from runtime.links.access.hop import sign_hop
from runtime.links.http.serve import start_app
from runtime.links.process.settings import SettingsError
from runtime.links.process.state_dir import held
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository
from tests.runtime.serving.bundle_factory import make_classifier

pytestmark = pytest.mark.integration

KEY = b"k" * 32
TOKEN = "secret-token"
PNG = {"Content-Type": "image/png"}
ADMIN = {"Authorization": f"Bearer {TOKEN}"}


class Fleet:
    """What a fleet serves: TUF metadata, and the contents of the bundles it has published."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = TufRepository(directory / "repository")
        self.repository.set_keys({"aa" * 32: ["desired"]})
        self.repository.publish()
        self.server = FleetServer(self.repository.directory)
        self.url = ""

    def publish(self, label: int, *, version: str = "1", **options: Any) -> str:
        packed = self.directory / f"packed-{version}"
        bias = [60.0 if index == label else 0.0 for index in range(10)]
        digest = make_classifier(packed, name="digits-cloud", tier="cloud", version=version, bias=bias, **options)
        for path in packed.rglob("*"):
            if path.is_file() and path.name != FILE:
                self.server.add_blob(path.read_bytes())
        self.repository.add_bundle((packed / FILE).read_bytes())
        self.repository.publish()
        return digest


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    fleet.url = await fleet.server.start()
    yield fleet
    await fleet.server.stop()


@pytest.fixture
def config(fleet: Fleet, tmp_path: Path) -> Config:
    (tmp_path / "hop.key").write_text(KEY.hex())
    (tmp_path / "admin.token").write_text(TOKEN + "\n")
    return Config(
        fleet_url=fleet.url,
        state_dir=str(tmp_path / "cloud"),
        hop_key_file=str(tmp_path / "hop.key"),
        admin_token_file=str(tmp_path / "admin.token"),
    )


class Running:
    """A cloud tier on a free port of this process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        Path(config.state_dir).mkdir(exist_ok=True)

    async def __aenter__(self) -> Running:
        self._runner, self.url = await start_app(build(self._config), "127.0.0.1", 0, name="cloud", drain_s=1.0)
        self.session = aiohttp.ClientSession(self.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self._runner.cleanup()

    async def status(self, path: str) -> int:
        async with self.session.get(path) as answer:
            return answer.status

    async def ready(self) -> None:
        while await self.status("/v2/health/ready") != 200:  # noqa: ASYNC110 - readiness is only told over HTTP
            await asyncio.sleep(0.02)

    async def predict(self, **sent: str) -> tuple[Prediction, aiohttp.ClientResponse]:
        picture = bytes(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1])
        async with self.session.post("/v1/predict/digits", data=picture, headers=PNG | sent) as answer:
            assert answer.status == 200, await answer.text()
            return msgspec.json.decode(await answer.read(), type=Prediction), answer


async def test_it_serves_what_the_fleet_has_signed(fleet: Fleet, config: Config) -> None:
    digest = fleet.publish(label=4)
    async with Running(config) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
        prediction, answer = await cloud.predict()
    assert isinstance(prediction, Classification)
    assert (prediction.label, prediction.tier, prediction.node, prediction.reason) == ("4", "cloud", "cloud", "cloud")
    assert prediction.bundle == "digits-cloud@1"
    assert answer.headers["Foothill-Digest"] == digest
    assert answer.headers["Foothill-Tier"] == "cloud"
    assert "total" in parse_server_timing(answer.headers["Server-Timing"])
    assert "Foothill-Answer" not in answer.headers


async def test_a_picture_has_no_more_pixels_than_configured(fleet: Fleet, config: Config) -> None:
    fleet.publish(label=4)
    async with Running(msgspec.structs.replace(config, max_pixels=64)) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
        await cloud.predict()
        larger = bytes(cv2.imencode(".png", np.zeros((8, 9), np.uint8))[1])
        async with cloud.session.post("/v1/predict/digits", data=larger, headers=PNG) as answer:
            assert (answer.status, "9x8 pixels, and 1 to 64 are taken" in await answer.text()) == (400, True)


async def test_a_verified_hop_gets_the_comparable_answer(fleet: Fleet, config: Config) -> None:
    fleet.publish(label=4)
    async with Running(config) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
        mark = sign_hop(KEY, "node", "abc", time.time())
        _, answer = await cloud.predict(**{"Foothill-Request-Id": "abc", "Foothill-Hop": mark})
        assert answer.headers["Foothill-Answer"] == "4"
        assert answer.headers["Foothill-Reason"] == "cloud"
        forged = sign_hop(b"x" * 32, "node", "abc", time.time())
        _, answer = await cloud.predict(**{"Foothill-Request-Id": "abc", "Foothill-Hop": forged})
        assert "Foothill-Answer" not in answer.headers


async def test_a_residency_claim_holds_for_the_cloud_too(fleet: Fleet, config: Config) -> None:
    fleet.publish(label=4)
    claim = {"Foothill-Residency": "eu-west"}
    async with Running(msgspec.structs.replace(config, region="eu-west")) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
        await cloud.predict(**claim)
    async with Running(config) as unplaced:
        await asyncio.wait_for(unplaced.ready(), 10)
        async with unplaced.session.post("/v1/predict/digits", data=b"", headers=PNG | claim) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, "residency_denied")
        await unplaced.predict()


async def test_it_is_not_ready_until_the_fleet_publishes_and_then_comes_up(fleet: Fleet, config: Config) -> None:
    async with Running(config) as cloud:
        assert await cloud.status("/v2/health/live") == 200
        assert await cloud.status("/v2/health/ready") == 503
        async with cloud.session.post("/v1/predict/digits", data=b"", headers=PNG) as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")
            assert answer.headers["Retry-After"] == "2"
        fleet.publish(label=1)
        await asyncio.wait_for(cloud.ready(), 10)


async def test_it_comes_back_without_the_fleet_from_what_it_verified_before(fleet: Fleet, config: Config) -> None:
    fleet.publish(label=4)
    async with Running(config) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
    await fleet.server.stop()
    async with Running(config) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
        prediction, _ = await cloud.predict()
    assert isinstance(prediction, Classification)
    assert prediction.label == "4"


async def test_a_bundle_that_fails_its_golden_test_is_never_served(
    fleet: Fleet, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.publish(label=4, golden_error=1.0)
    async with Running(config) as cloud:
        while "fails its golden test" not in caplog.text:  # noqa: ASYNC110 - the log is all there is to see
            await asyncio.sleep(0.02)
        assert await cloud.status("/v2/health/ready") == 503


async def test_the_admin_unloads_loads_and_reads_files_and_nobody_else(fleet: Fleet, config: Config) -> None:
    digest = fleet.publish(label=4)
    async with Running(config) as cloud:
        await asyncio.wait_for(cloud.ready(), 10)
        for token in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
            for path in ("load", "unload"):
                async with cloud.session.post(f"/v2/repository/models/digits/{path}", headers=token) as answer:
                    assert answer.status == 403
            async with cloud.session.get(f"/v1/bundles/{digest}/fp32.onnx", headers=token) as answer:
                assert answer.status == 403
        async with cloud.session.post("/v2/repository/models/digits/unload", headers=ADMIN) as answer:
            assert answer.status == 200
        assert await cloud.status("/v2/models/digits/ready") == 404
        async with cloud.session.post("/v2/repository/index") as answer:
            (line,) = await answer.json()
        assert (line["name"], line["state"]) == ("digits", "UNAVAILABLE")
        async with cloud.session.post("/v2/repository/models/digits/load", headers=ADMIN) as answer:
            assert answer.status == 200
        assert await cloud.status("/v2/models/digits/ready") == 200
        async with cloud.session.post("/v2/repository/models/other/load", headers=ADMIN) as answer:
            assert answer.status == 404
        async with cloud.session.get(f"/v1/bundles/{digest}/{FILE}", headers=ADMIN) as answer:
            assert b'"digits-cloud"' in await answer.read()
        async with cloud.session.get(f"/v1/bundles/{digest}/golden/inputs/image.npy", headers=ADMIN) as answer:
            assert (await answer.read()).startswith(b"\x93NUMPY")
        for wrong in (f"{digest}/nothing", f"{digest}/..%2f..%2flock", "sha256:zz/x", f"sha256:{'0' * 64}/{FILE}"):
            async with cloud.session.get(f"/v1/bundles/{wrong}", headers=ADMIN) as answer:
                assert (answer.status, (await answer.json())["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "config",
    [Config(hop_key_file="nowhere"), Config(admin_token_file="nowhere")],
    ids=["hop_key_file", "admin_token_file"],
)
def test_secrets_that_cannot_be_read_are_named(config: Config) -> None:
    with pytest.raises(SettingsError, match="_file nowhere cannot be read"):
        build(config)


def test_two_processes_never_share_a_state_directory(tmp_path: Path) -> None:
    again = held(tmp_path / "state")
    with held(tmp_path / "state"), pytest.raises(SettingsError, match="Another process runs in state_dir"):
        again.__enter__()
    with held(tmp_path / "state"):
        pass


def test_as_a_process_it_says_where_it_listens_and_stops_on_a_signal(tmp_path: Path) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text(f'port = 0\nstate_dir = "{tmp_path}/state"\nfleet_url = "http://127.0.0.1:9"\n')
    command = [sys.executable, "-m", "cloud_tier", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as process:
        assert process.stderr is not None
        said = ""
        while "listening on http://127.0.0.1:" not in said or "waits for bundle" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(10) == 0
    assert "digits waits for bundle digits-cloud@1: No root metadata yet" in said


def test_the_command_says_what_is_wrong_with_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text("threds = 1\n")
    command = [sys.executable, "-c", "from cloud_tier.cli import app; app()", "run", str(tmp_path / "cloud.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}, timeout=60)
    assert done.returncode == 2
    assert "unknown key `threds`. Did you mean `threads`?" in done.stderr
