"""One node falls sick under load, over real sockets: every request is answered, few are sent twice, and it is asked
again soon after it is well."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fault_story import FAULTS, Fault, Story, tell
from benchmarks.faulty_nodes import FaultyNode
from benchmarks.load import Target
from contracts import headers
from tests.router.faults.conftest import RATE, SERVICE_MS, SHORT, asking, statics
from tests.router.test_app import Client, Route
from tests.runtime.raw_caller import until

AMPLIFICATION = 1.10
RECOVERY_S = 2.0 + 0.5
"""With some slack: a machine may be busy."""
LOST_BY_A_BUSY_MACHINE = 0.01
"""A share of all requests: the benchmark counts them on a machine that is not, and finds none."""


async def retries(client: Client) -> float:
    _, told = await client.ask("GET", "/metrics")
    lines = [line for line in told.decode().splitlines() if line.startswith("foothill_router_retries_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if "no-budget" not in line)


def check(story: Story, *, retried: float = 0.0) -> None:
    assert story.failed <= LOST_BY_A_BUSY_MACHINE * story.requests, "others could have answered in time"
    assert max(story.asked, story.requests + retried) <= AMPLIFICATION * story.requests


@pytest.mark.parametrize("name", FAULTS)
async def test_a_sick_node_costs_no_answer_and_is_asked_again(
    router: Route, nodes: list[FaultyNode], name: str
) -> None:
    client, sick = await router(statics(nodes), []), nodes[0]
    story = await tell(asking(client), nodes, sick, FAULTS[name](sick), RATE, SHORT)
    check(story, retried=await retries(client))
    assert story.back_after_s is not None
    assert story.back_after_s < RECOVERY_S


async def test_requests_that_may_be_hedged_fare_no_worse(router: Route, nodes: list[FaultyNode]) -> None:
    client, sick = await router(statics(nodes), []), nodes[0]
    target = asking(client, **{headers.IDEMPOTENCY_KEY: "k"})
    story = await tell(target, nodes, sick, FAULTS["half-open"](sick), RATE, SHORT)
    check(story, retried=await retries(client))
    assert story.back_after_s is not None
    assert story.back_after_s < RECOVERY_S


async def test_a_slow_node_is_left_to_itself(target: Target, nodes: list[FaultyNode]) -> None:
    sick = nodes[0]
    story = await tell(target, nodes, sick, FAULTS["slow x10"](sick), RATE, SHORT._replace(after_s=0.1))
    check(story)
    before, during = SHORT.before_s * RATE, SHORT.during_s * RATE
    asked = len(sick.asked_s)
    assert asked - before < 0.2 * during, "it could answer one request in fifteen"


async def test_a_process_that_was_killed_is_asked_again_once_it_is_back(
    router: Route, nodes: list[FaultyNode], tmp_path: Path
) -> None:
    """The process dies (SIGKILL), and another one takes its port."""
    near = FaultyNode("edge-own", service_ms=SERVICE_MS)
    ready = tmp_path / "ready"

    async def start() -> None:
        ready.unlink(missing_ok=True)
        running.append(_process(near, ready))
        await until(ready.exists)

    async def kill() -> None:
        running[-1].kill()
        running[-1].wait()

    client = await router(statics([near, *nodes[1:]]), [])
    running: list[subprocess.Popen[bytes]] = []
    await start()

    try:
        story = await tell(asking(client), nodes[1:], nodes[1], Fault(kill, start), RATE, SHORT)
        assert story.failed == 0
        assert await retries(client) <= (AMPLIFICATION - 1.0) * story.requests
        await asyncio.wait_for(_answers(client, near.name), RECOVERY_S)
    finally:
        running[-1].terminate()
        running[-1].wait()
        near.close()


def _process(node: FaultyNode, ready: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.faulty_nodes", node.name, str(node.port), str(ready)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[3])


async def _answers(client: Client, name: str) -> None:
    while True:
        response, _ = await client.predict({headers.DEADLINE_MS: "1000"})
        assert response.status == 200
        if response.headers[headers.NODE] == name:
            return
        await asyncio.sleep(0.01)
