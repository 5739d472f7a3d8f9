"""A detector over HTTP: boxes in the picture's own pixels."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import msgspec
import numpy as np
import pytest

from contracts.manifest import Isotonic
from runtime.links.http.serve import start_app
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import TARGET, make_detector


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async for url in serving(tmp_path):
        yield url


@pytest.fixture
async def ruled_url(tmp_path: Path) -> AsyncIterator[str]:
    async for url in serving(tmp_path, isotonic=Isotonic((0.0, 1.0), (0.1, 0.8))):
        yield url


async def serving(tmp_path: Path, **changes: Any) -> AsyncIterator[str]:
    host = ModelHost(drain_s=1.0)
    digest = make_detector(tmp_path / "bundle", **changes)
    await host.activate("things", LoadedModel.open(tmp_path / "bundle", digest, target=TARGET, threads=1))
    app = create_app(host, ServingSettings(node="n", tier="edge"), holder=None, telemetry=Telemetry())
    runner, url = await start_app(app, "127.0.0.1", 0, name="n", drain_s=0.1)
    yield url
    await runner.cleanup()
    await host.close()


def scene(scale: int, *at: tuple[int, int]) -> np.ndarray:
    picture = np.full((240, 320, 3), 60, np.uint8)
    for left, top in at:
        picture[top : top + 40, left : left + 24] = 240
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST))


async def ask(url: str, body: bytes, content_type: str, accept: str = "application/json") -> tuple[Any, Any]:
    named = {"Content-Type": content_type, "Accept": accept}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/predict/things", data=body, headers=named) as answer,
    ):
        assert answer.status == 200, await answer.text()
        told = await answer.read()
        return msgspec.msgpack.decode(told) if "msgpack" in accept else json.loads(told), answer.headers


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
async def test_a_picture_is_answered_with_boxes_in_its_own_pixels(url: str, scale: int, kind: str) -> None:
    body = cv2.imencode(f".{kind}", scene(scale, (40, 80), (200, 160)))[1].tobytes()
    told, named = await ask(url, body, f"image/{kind}")
    assert (told["task"], told["model"], told["confidence"]) == ("detection", "things", None)
    boxes = sorted(thing["box"] for thing in told["objects"])
    assert np.array(boxes) / scale == pytest.approx(np.array([[40, 80, 64, 120], [200, 160, 224, 200]]), abs=1.0)
    assert {thing["label"] for thing in told["objects"]} == {"block"}
    assert all(0.5 < thing["score"] <= 1.0 for thing in told["objects"])
    assert "Foothill-Confidence" not in named


async def test_an_empty_picture_is_answered_with_nothing_in_it(url: str) -> None:
    told, _ = await ask(url, cv2.imencode(".png", scene(1))[1].tobytes(), "image/png", "application/msgpack")
    assert told["objects"] == []


async def test_tensors_are_answered_in_pixels_of_the_models_own_picture(url: str) -> None:
    tensor = np.ascontiguousarray(scene(1, (40, 80)).transpose(2, 0, 1)[np.newaxis] / np.float32(255), np.float32)
    packed = {"image": {"datatype": "FP32", "shape": list(tensor.shape), "data": tensor.tobytes()}}
    told, _ = await ask(url, msgspec.msgpack.encode(packed), "application/msgpack")
    assert told["objects"][0]["box"] == pytest.approx([40, 80, 64, 120], abs=1.0)


async def test_with_a_rule_a_picture_tells_how_sure_its_least_sure_label_is(ruled_url: str) -> None:
    told, named = await ask(ruled_url, cv2.imencode(".png", scene(1, (40, 80)))[1].tobytes(), "image/png")
    assert told["confidence"] == pytest.approx(0.1 + 0.7 * told["objects"][0]["score"])
    assert float(named["Foothill-Confidence"]) == told["confidence"]
    told, named = await ask(ruled_url, cv2.imencode(".png", scene(1))[1].tobytes(), "image/png")
    assert (told["objects"], told["confidence"]) == ([], None)
    assert "Foothill-Confidence" not in named
