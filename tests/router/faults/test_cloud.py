"""The cloud goes away under load: every request keeps its edge answer, and the cloud is asked again once it is back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from benchmarks.fault_story import FAULTS, tell
from benchmarks.faulty_nodes import FaultyNode
from contracts import headers
from tests.router.faults.conftest import RATE, SHORT, asking, statics
from tests.router.faults.test_nodes import AMPLIFICATION, RECOVERY_S
from tests.router.test_app import Route


@pytest.fixture
async def cloud() -> AsyncIterator[FaultyNode]:
    made = FaultyNode("cloud", service_ms=1.0, far_ms=5.0, tier="cloud")
    await made.start()
    yield made
    made.close()


@pytest.mark.parametrize("name", ["killed", "silent", "packets dropped", "failing fast"])
async def test_a_cloud_that_is_gone_costs_no_answer(
    router: Route, nodes: list[FaultyNode], cloud: FaultyNode, name: str
) -> None:
    """Nothing is certified here, so that every edge answer is doubted."""
    for node in nodes:
        node.confidence = 0.5
    client = await router(statics(nodes), [cloud.url])
    story = await tell(asking(client), [*nodes, cloud], cloud, FAULTS[name](cloud), RATE, SHORT)
    assert story.failed == 0
    assert story.back_after_s is not None
    assert story.back_after_s < RECOVERY_S
    assert sum(len(node.asked_s) for node in nodes) <= AMPLIFICATION * story.requests
    assert len(cloud.asked_s) <= 2 * story.requests, "once for its caller, once for its late result"


async def test_who_wants_the_cloud_gets_the_edge_while_it_is_gone(
    router: Route, nodes: list[FaultyNode], cloud: FaultyNode
) -> None:
    client = await router(statics(nodes), [cloud.url])
    target = asking(client, **{headers.ESCALATION: "always"})
    story = await tell(target, [*nodes, cloud], cloud, FAULTS["killed"](cloud), RATE, SHORT)
    assert story.failed == 0
    assert story.back_after_s is not None
    assert story.back_after_s < RECOVERY_S
    assert len(story.before.status) <= len(cloud.answered)
