"""Servers of small real models on port 0."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runtime.links.http.serve import start_app
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import TARGET, make_classifier

HOP_KEY = b"k" * 32
Load = Callable[..., LoadedModel]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Packs a bundle with a factory, by default the classifier, and opens it."""
    count = 0

    def make(factory: Callable[..., str] = make_classifier, **options: Any) -> LoadedModel:
        nonlocal count
        count += 1
        directory = tmp_path / f"bundle-{count}"
        digest = factory(directory, **options)
        return LoadedModel.open(directory, digest, target=TARGET, threads=1)

    return make


Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def host() -> AsyncIterator[ModelHost]:
    host = ModelHost(drain_s=5.0)
    yield host
    await host.close()


@pytest.fixture
async def serve(host: ModelHost) -> AsyncIterator[Serve]:
    """Serves `host`, or another application; returns the URL. Keywords are those of ServingSettings and create_app."""
    runners: list[web.AppRunner] = []

    async def start(
        *, app: web.Application | None = None, holder: Any = None, repository: Any = None, **settings: Any
    ) -> str:
        if app is None:
            merged = ServingSettings(**({"node": "fra-1", "tier": "edge", "hop_key": HOP_KEY} | settings))
            app = create_app(host, merged, holder=holder, telemetry=Telemetry(), repository=repository)
        runner, url = await start_app(app, "127.0.0.1", 0, name="node", drain_s=1.0)
        runners.append(runner)
        return url

    yield start
    for runner in runners:
        await runner.cleanup()
