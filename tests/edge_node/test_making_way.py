"""Where memory is short, a model makes way for its next bundle: what callers and load balancers are told meanwhile."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from edge_node.room import Room
from runtime.links.http.serve import start_app
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.test_node_process import picture
from tests.edge_node.workbench import OPEN_TESTED, Bench, Warehouse, desired, until

PREDICT, INFER, READY = "/v1/predict/digits", "/v2/models/digits/infer", "/v2/health/ready"
TENSOR = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}]}


class Gate:
    """Bundles are opened as a node does, but those after the first wait until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.opened = 0

    def __call__(self, directory: Path, digest: str) -> LoadedModel:
        self.opened += 1
        if self.opened > 1:
            assert self.open.wait(30)
        return OPEN_TESTED(directory, digest)


class Node:
    """A bench behind real sockets, with memory for one copy of a model only."""

    http: aiohttp.ClientSession

    def __init__(self, directory: Path) -> None:
        self.warehouse, self.gate, self.available = Warehouse(directory / "warehouse"), Gate(), 0
        room = Room(lambda: self.available, 0, "unload")
        self.bench = Bench(directory / "node", self.warehouse, room=room, open_bundle=self.gate)

    async def begin(self, first: str) -> None:
        assert await self.bench.updater.apply(desired(1, {"digits": first}), {})
        self.available = 1

    async def switching(self, digest: str) -> asyncio.Task[bool]:
        """Returns when the model is away."""
        task = asyncio.create_task(self.bench.updater.apply(desired(2, {"digits": digest}), {}))
        await until(lambda: "digits" in self.bench.host.away and self.gate.opened > 1)
        return task

    async def ask(self, path: str) -> tuple[int, dict[str, str], str]:
        if path == READY:
            answer = await self.http.get(READY)
        elif path == PREDICT:
            answer = await self.http.post(path, data=picture(), headers={"Content-Type": "image/jpeg"})
        else:
            answer = await self.http.post(path, json=TENSOR)
        return answer.status, dict(answer.headers), await answer.text()

    async def status(self, path: str) -> int:
        return (await self.ask(path))[0]


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Node]:
    node = Node(directory)
    app = create_app(
        node.bench.host, ServingSettings(node="frankfurt", tier="edge"), holder=None, telemetry=Telemetry()
    )
    runner, url = await start_app(app, "127.0.0.1", 0, name="frankfurt", drain_s=0.1)
    node.http = aiohttp.ClientSession(url)
    try:
        yield node
    finally:
        node.gate.open.set()
        await node.http.close()
        await runner.cleanup()
        await node.bench.host.close()


async def test_callers_are_told_to_come_again_and_load_balancers_to_go_elsewhere(tmp_path: Path) -> None:
    async with serving(tmp_path) as node:
        await node.begin(node.warehouse.pack("1"))
        assert [await node.status(path) for path in (PREDICT, INFER, READY)] == [200, 200, 200]
        switching = await node.switching(node.warehouse.pack("2"))
        for path in (PREDICT, INFER):
            status, headers, text = await node.ask(path)
            assert status == 503, text
            assert int(headers["Retry-After"]) >= 1
            assert "Model digits is away for a moment: memory is short" in text
        status, _, text = await node.ask(READY)
        assert (status, "no bundle is loaded for digits" in text) == (503, True)
        async with node.http.post("/v2/repository/index") as answer:
            assert (await answer.json())[0]["state"] == "UNAVAILABLE"
        node.gate.open.set()
        assert await switching
        assert [await node.status(path) for path in (PREDICT, INFER, READY)] == [200, 200, 200]


async def test_what_opening_a_bundle_took_is_logged_and_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as node:
        await node.begin(node.warehouse.pack("1"))
        async with node.http.get("/metrics") as answer:
            text = await answer.text()
        steps = re.findall(r'foothill_model_opening_seconds{model="digits",step="([a-z-]+)"} ([0-9.e-]+)', text)
        assert [step for step, _ in steps] == ["load", "first-answer", "warm-up"]
        assert 0 < float(steps[0][1]) < float(steps[1][1])
        line = next(each for each in caplog.messages if each.startswith("digits is served by digits-edge@1"))
        assert re.search(r": loaded in \S+ s, first answer after \S+ s, warm-up \S+ s$", line)


async def test_when_the_next_bundle_fails_the_one_before_is_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as node:
        await node.begin(one := node.warehouse.pack("1"))
        switching = await node.switching(node.warehouse.pack("2", golden_error=1.0))
        node.gate.open.set()
        assert await switching
        assert (node.bench.serving(), await node.status(PREDICT), await node.status(READY)) == (one, 200, 200)


async def test_when_that_fails_too_the_model_is_not_promised_any_longer(tmp_path: Path) -> None:
    async with serving(tmp_path) as node:
        await node.begin(one := node.warehouse.pack("1"))
        switching = await node.switching(node.warehouse.pack("2", golden_error=1.0))
        next(node.bench.store.path(one).glob("*.onnx")).unlink()
        node.gate.open.set()
        assert await switching
        assert (await node.status(PREDICT), node.bench.host.away) == (404, {})


@pytest.mark.parametrize("wanted", ["1", ""], ids=["the one before", "nothing"])
async def test_a_document_that_comes_in_between_ends_it(tmp_path: Path, wanted: str) -> None:
    async with serving(tmp_path) as node:
        await node.begin(one := node.warehouse.pack("1"))
        switching = await node.switching(node.warehouse.pack("2"))
        switching.cancel()
        node.gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await switching
        assert await node.status(PREDICT) == 503
        node.available = 0
        assert await node.bench.updater.apply(desired(3, {"digits": one} if wanted else {}), {})
        assert (await node.status(PREDICT), node.bench.host.away) == (200 if wanted else 404, {})
