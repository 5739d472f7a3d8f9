"""Who is asked who he is takes the short way too, is asked once, and may do no more there than on the long one."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from contracts import headers
from tests.router.rig import Server, static
from tests.router.test_app import Client, Route, cloud, edge, refusal_of, router
from tests.router.test_shortcut import short

__all__ = ["cloud", "edge", "router", "short"]


class Tokens:
    """A file of tokens, which are written as their tables go on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **tables: str) -> None:
        told = [
            f'[[tokens]]\nname = "{token}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{table}\n'
            for token, table in tables.items()
        ]
        self.path.write_text("".join(told))
        # Its times may be too coarse to tell two writes of one moment apart.
        os.utime(self.path, ns=(0, self.path.stat().st_size))


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.toml")


async def asking(router: Route, tokens: Tokens, nodes: list[Server]) -> Client:
    return await router([static(node.name, node.url) for node in nodes], [], tokens_file=str(tokens.path))


def bearer(token: str, **named: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **named}


async def test_a_token_is_good_on_the_short_way(router: Route, edge: Server, tokens: Tokens, short: list[bool]) -> None:
    tokens.write(kiosk="")
    client = await asking(router, tokens, [edge])
    for _ in range(4):
        assert (await client.predict(bearer("kiosk")))[0].status == 200
    assert short[-2:] == [True, True]


@pytest.mark.parametrize("warm", [0, 3])
async def test_each_request_is_asked_for_itself(router: Route, edge: Server, tokens: Tokens, warm: int) -> None:
    """Also on a connection on which others were admitted, and behind requests of the very same form."""
    tokens.write(kiosk="", other='models = ["another"]')
    client = await asking(router, tokens, [edge])
    for _ in range(warm):
        assert (await client.predict(bearer("kiosk")))[0].status == 200
    for wrong, status, code in [
        ({}, 401, "unauthorized"),
        (bearer("kiosK"), 401, "unauthorized"),
        (bearer("other"), 403, "forbidden"),
        ({"Authorization": "Basic a2lvc2s="}, 401, "unauthorized"),
    ]:
        for _ in range(3):
            response, body = await client.predict(wrong)
            assert (response.status, refusal_of(response, body).code) == (status, code)
    assert (await client.predict(bearer("kiosk")))[0].status == 200


async def test_a_tenants_rate_is_charged_once_for_each_request(router: Route, edge: Server, tokens: Tokens) -> None:
    """Also where the short way finds no way, and leaves the request to the long one."""
    tokens.write(kiosk="requests_per_s = 6")
    client = await asking(router, tokens, [edge])
    statuses = []
    for hangs_up in [False, True, True, False, True, False, False, False, False]:
        if hangs_up:
            edge.hang_up()
            await asyncio.sleep(0.01)
        statuses.append((await client.predict(bearer("kiosk")))[0].status)
    assert statuses[:6] == [200] * 6
    assert 429 in statuses[6:]


async def test_a_change_of_the_file_counts_for_heads_that_are_known(
    router: Route, edge: Server, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.links.access.tokens.LOOK_AGAIN_S", 0.0)
    tokens.write(kiosk="")
    client = await asking(router, tokens, [edge])
    for _ in range(3):
        assert (await client.predict(bearer("kiosk")))[0].status == 200
    tokens.write(kiosk='residency = ["asia-east"]')
    response, body = await client.predict(bearer("kiosk"))
    assert (response.status, refusal_of(response, body).code) == (403, "residency_denied")
    tokens.write(kiosk='residency = ["eu-central"]')
    assert (await client.predict(bearer("kiosk")))[0].status == 200
    response, body = await client.predict(bearer("kiosk", **{headers.RESIDENCY: "us-east"}))
    assert (response.status, refusal_of(response, body).code) == (403, "residency_denied")
    tokens.write(somebody="")
    assert (await client.predict(bearer("kiosk")))[0].status == 401


async def test_the_claim_of_a_token_is_told_to_the_node(router: Route, edge: Server, tokens: Tokens) -> None:
    tokens.write(kiosk='residency = ["eu-central", "eu-west"]')
    client = await asking(router, tokens, [edge])
    for _ in range(3):
        await client.predict(bearer("kiosk"))
    assert {seen.headers[headers.RESIDENCY] for seen in edge.seen} == {"eu-central,eu-west"}
