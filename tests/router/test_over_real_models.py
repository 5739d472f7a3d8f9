"""The router before real servers of real models: unchanged clients, every route, escalation, and the cloud away."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
from aiohttp import web
from tritonclient.utils import InferenceServerException

from contracts import headers
from contracts.predictions import Classification
from router.config import Config
from router.wiring import wired
from runtime.links.http.serve import start_app
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.router.rig import HOP_KEY, static
from tests.runtime.serving.bundle_factory import TARGET, make_classifier

T = TypeVar("T")
SURE_OF_3 = [0.0, 0.0, 0.0, 50.0] + [0.0] * 6
SURE_OF_7 = [0.0] * 7 + [50.0, 0.0, 0.0]
IMAGE = np.zeros((1, 1, 8, 8), np.float32)


class House:
    """A router, an edge node that says 3 and a cloud tier that says 7."""

    def __init__(self, url: str, cloud: web.AppRunner, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.cloud = cloud
        self.session = session

    async def triton(self, question: Callable[[triton.InferenceServerClient], T]) -> T:
        """Runs in a thread, where the client's own event loop can live."""

        def ask() -> T:
            with triton.InferenceServerClient(self.url.removeprefix("http://")) as client:
                return question(client)

        return await asyncio.to_thread(ask)

    async def predict(self, **sent: str) -> tuple[aiohttp.ClientResponse, Classification]:
        body = msgspec.msgpack.encode({"image": {"shape": [1, 1, 8, 8], "datatype": "FP32", "data": IMAGE.tobytes()}})
        given = {
            "Content-Type": "application/msgpack",
            **{name.replace("_", "-"): value for name, value in sent.items()},
        }
        async with self.session.post(f"{self.url}/v1/predict/digits", data=body, headers=given) as response:
            told = await response.read()
            assert response.status == 200, told
            decode = msgspec.msgpack.decode if "msgpack" in response.content_type else msgspec.json.decode
            return response, decode(told, type=Classification)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    key = tmp_path / "hop.key"
    key.write_text(HOP_KEY.hex())
    async with AsyncExitStack() as closing:

        async def served(name: str, tier: Any, bias: list[float]) -> tuple[str, web.AppRunner]:
            host = ModelHost(drain_s=1.0)
            closing.push_async_callback(host.close)
            digest = make_classifier(tmp_path / name, name=f"digits-{tier}", tier=tier, bias=bias)
            await host.activate("digits", LoadedModel.open(tmp_path / name, digest, target=TARGET, threads=1))
            settings = ServingSettings(node=name, tier=tier, hop_key=HOP_KEY)
            app = create_app(host, settings, holder=None, telemetry=Telemetry())
            runner, url = await start_app(app, "127.0.0.1", 0, name=name, drain_s=0.1)
            closing.push_async_callback(runner.cleanup)
            return url, runner

        edge_url, _ = await served("edge-fra", "edge", SURE_OF_3)
        cloud_url, cloud = await served("cloud", "cloud", SURE_OF_7)
        config = Config(
            broker_url="",
            nodes=(static("edge-fra", edge_url),),
            cloud_urls=(cloud_url,),
            hop_key_file=str(key),
        )
        app = await closing.enter_async_context(wired(config, rng=random.Random(1)))
        runner, url = await start_app(app, "127.0.0.1", 0, name="router", drain_s=0.1)
        closing.push_async_callback(runner.cleanup)
        yield House(url, cloud, await closing.enter_async_context(aiohttp.ClientSession()))


@pytest.mark.parametrize("binary", [True, False])
async def test_an_unchanged_triton_client_gets_its_tensors(house: House, binary: bool) -> None:
    def question(client: triton.InferenceServerClient) -> tuple[int, str]:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        image = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        image.set_data_from_numpy(IMAGE, binary_data=binary)
        wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
        result = client.infer("digits", [image], outputs=wanted, headers={headers.ESCALATION: "never"})
        return int(result.as_numpy("logits").argmax()), client.get_model_metadata("digits")["name"]

    assert await house.triton(question) == (3, "digits")


async def test_triton_reads_configuration_statistics_and_index(house: House) -> None:
    def question(client: triton.InferenceServerClient) -> tuple[Any, Any, Any, Any]:
        return (
            client.get_server_metadata(),
            client.get_model_config("digits"),
            client.get_inference_statistics(),
            client.get_model_repository_index(),
        )

    server, config, statistics, index = await house.triton(question)
    assert server["name"] == "foothill-router"
    assert config["name"] == "digits"
    assert statistics["model_stats"][0]["name"] == "digits"
    assert {entry["name"] for entry in index} == {"digits"}


async def test_triton_hears_the_contracts_errors(house: House) -> None:
    def wrong_shape(client: triton.InferenceServerClient) -> None:
        image = triton.InferInput("image", [1, 3], "FP32")
        image.set_data_from_numpy(np.zeros((1, 3), np.float32))
        client.infer("digits", [image])

    def unknown_model(client: triton.InferenceServerClient) -> None:
        client.get_model_metadata("faces")

    def load(client: triton.InferenceServerClient) -> None:
        client.load_model("digits")

    for question, status in ((wrong_shape, "400"), (unknown_model, "404"), (load, "403")):
        with pytest.raises(InferenceServerException) as raised:
            await house.triton(question)
        assert raised.value.status() == status


async def test_the_body_tells_the_same_as_the_headers(house: House) -> None:
    for accept in ("application/json", "application/msgpack"):
        response, told = await house.predict(Accept=accept, Foothill_Escalation="never")
        assert (told.label, told.tier, told.node, told.reason) == ("3", "edge", "edge-fra", "asked-never")
        assert (response.headers[headers.REASON], response.headers[headers.TIER]) == ("asked-never", "edge")
        assert told.request_id == response.headers[headers.REQUEST_ID]
        assert float(response.headers[headers.CONFIDENCE]) == told.confidence


async def test_without_a_certificate_the_cloud_answers_and_when_it_is_away_the_edge_degraded(house: House) -> None:
    response, told = await house.predict()
    assert (told.label, told.tier, told.reason) == ("7", "cloud", "uncertified")
    assert response.headers[headers.CERTIFIED] == "false"
    assert "escalate" in response.headers[headers.SERVER_TIMING]
    response, told = await house.predict(Foothill_Escalation="always")
    assert (told.label, told.reason) == ("7", "asked-always")
    await house.cloud.cleanup()
    response, told = await house.predict()
    assert (told.label, told.tier, told.reason) == ("3", "edge", "cloud-failed")
    assert response.headers[headers.DEGRADED] == "true"


async def test_an_image_that_is_none_is_the_callers_fault(house: House) -> None:
    async with house.session.post(
        f"{house.url}/v1/predict/digits", data=b"no image", headers={"Content-Type": "image/png"}
    ) as response:
        error = json.loads(await response.read())
    assert (response.status, error["code"], error["source"]) == (400, "bad_image", "edge-fra")
