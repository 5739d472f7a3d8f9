"""`GET /v1/results/{request_id}` over real sockets: whose it is, and names that are none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from contracts.headers import Terms
from contracts.messages import Late
from edge_node.late import LatePart
from edge_node.spool import FILE
from edge_node.spool_file import SpoolConfig
from runtime.links.access.admission import Admission
from runtime.links.access.tokens import TokenFile
from runtime.links.http.serve import start_app
from runtime.links.http.upstream import Answer, Request, UpstreamUnreachable
from runtime.links.process.telemetry import Telemetry
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from tests.edge_node.test_spool_file import doubtful


class Node:
    def __init__(self, url: str, part: LatePart, session: aiohttp.ClientSession) -> None:
        self.part = part
        self._url = url
        self._session = session

    async def status(self, request_id: str, token: str = "s3cret") -> int:
        sent = {"Authorization": f"Bearer {token}"}
        async with self._session.get(f"{self._url}/v1/results/{request_id}", headers=sent) as answer:
            return answer.status


async def away(request: Request, terms: Terms) -> Answer:
    raise UpstreamUnreachable("http://cloud", sent=False, reason="cut")


def nobody_listens(late: Late) -> bool:
    return False


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        "\n".join(
            f'[[tokens]]\nname = "kiosk"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{more}'
            for token, more in (("s3cret", ""), ("f4ces", 'models = ["faces"]'))
        )
    )
    part = LatePart(tmp_path, SpoolConfig(), node="fra", ask=away, publish=nobody_listens, registry=CollectorRegistry())
    host = ModelHost()
    app = create_app(
        host,
        ServingSettings(node="fra", tier="edge"),
        holder=None,
        telemetry=Telemetry(),
        admission=Admission(tokens=TokenFile(tokens, time.monotonic), tickets=None),
    )
    part.live_in(app)
    runner, url = await start_app(app, "127.0.0.1", 0, name="fra", drain_s=0.1)
    async with aiohttp.ClientSession() as session:
        yield Node(url, part, session)
    await runner.cleanup()
    await host.close()


async def test_a_tenants_tokens_see_its_own_requests_about_their_models(node: Node) -> None:
    await node.part.spool.put(doubtful("r1", tenant="kiosk"))
    await node.part.spool.put(doubtful("r2", tenant="shop"))
    assert [await node.status(name) for name in ("r1", "r2", "r3")] == [202, 404, 404]
    assert await node.status("r1", "f4ces") == 403
    assert await node.status("r1", "guess") == 401


@pytest.mark.parametrize(
    "name", ["%00", "%ff", "%ed%a0%80", "..", "a%2Fb", "x" * 4000, "'%20OR%201=1--", "%F0%9F%92%A5"]
)
async def test_a_name_that_is_none_finds_nothing(node: Node, name: str) -> None:
    await node.part.spool.put(doubtful("r1", tenant="kiosk"))
    assert await node.status(name) == 404


@pytest.fixture
def no_room_for_a_file(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()


async def test_a_spool_that_cannot_be_read_says_so(no_room_for_a_file: None, node: Node) -> None:
    assert await node.status("r1") == 503
