"""A router before nodes that misbehave when they are told to: the nearest is the one that falls sick."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from benchmarks.fault_story import Times
from benchmarks.faulty_nodes import HOP_KEY, FaultyNode
from benchmarks.load import Target, post
from contracts import headers
from tests.router import rig
from tests.router.rig import DUBLIN, FRANKFURT, static
from tests.router.test_app import Client, Route, router

__all__ = ["router"]

RATE = 150.0
DEADLINE_MS = 800.0
SHORT = Times(before_s=0.25, during_s=0.7, after_s=3.0, patience=True)
SERVICE_MS, FAR_MS = 10.0, 20.0
assert HOP_KEY == rig.HOP_KEY


@pytest.fixture
async def nodes() -> AsyncIterator[list[FaultyNode]]:
    """Four, of which the first is the nearest; together they could answer 400 requests a second."""
    made = [FaultyNode(f"edge-{at}", service_ms=SERVICE_MS, far_ms=FAR_MS if at else 0.0) for at in range(4)]
    for node in made:
        await node.start()
    yield made
    for node in made:
        node.close()


def statics(nodes: list[FaultyNode]) -> list[Any]:
    return [static(node.name, node.url, FRANKFURT if at else DUBLIN) for at, node in enumerate(nodes)]


def asking(client: Client, **sent: str) -> Target:
    """Headers with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in sent.items()}
    told = {"Content-Type": "image/png", headers.DEADLINE_MS: f"{DEADLINE_MS:.0f}", **named}
    return post(client.url, "/v1/predict/digits", told, b"png")


@pytest.fixture
async def target(router: Route, nodes: list[FaultyNode]) -> Target:
    return asking(await router(statics(nodes), []))
