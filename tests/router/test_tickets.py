"""A router that asks who calls, and says so to the servers of a lease in a ticket."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from contracts import tickets
from contracts.tickets import CLOUD_AUDIENCE, Limits
from router.__main__ import run
from router.config import Config, TicketConfig
from runtime.links.access.tickets import verify
from runtime.links.process.settings import SettingsError
from runtime.links.trust import signatures
from tests.router.rig import Server, static
from tests.router.test_app import Client, Route, cloud, edge, router  # noqa: F401 - fixtures

PRIVATE = signatures.generate()
KIOSK = {"Authorization": "Bearer s3cret"}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    """The keys of a configuration that asks, and gives tickets."""
    (tmp_path / "ticket.key").write_text(PRIVATE.hex() + "\n")
    lines = [("kiosk", "s3cret", 'residency = ["eu-central", "eu-west"]'), ("faces", "f4ces", 'models = ["faces"]')]
    (tmp_path / "tokens.toml").write_text(
        "\n".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{more}'
            for name, token, more in lines
        )
    )
    return {
        "tokens_file": str(tmp_path / "tokens.toml"),
        "tickets": TicketConfig(str(tmp_path / "ticket.key"), ttl_s=120.0, requests=100, bytes=5_000_000),
    }


@pytest.fixture
async def client(router: Route, edge: Server, cloud: Server, keys: dict[str, Any]) -> Client:  # noqa: F811
    return await router([static("edge-fra", edge.url)], [cloud.url], cloud_region="eu-west", **keys)


async def lease(client: Client, **sent: str) -> Any:
    return await client.json("POST", "/v1/route", body=b'{"model": "digits"}', sent=KIOSK | sent)


async def test_a_lease_carries_a_ticket_for_its_servers_its_model_and_its_tenant(client: Client) -> None:
    before_s = time.time()
    given = await lease(client, **{"Foothill-Residency": "eu-central,us"})
    ticket = verify(tickets.parse(given["ticket"]), signatures.public_key(PRIVATE))
    assert (ticket.tenant, ticket.model, ticket.limits) == ("kiosk", "digits", Limits(100, 0, 5_000_000))
    assert (ticket.aud, ticket.residency) == (("edge-fra",), ("eu-central",))
    assert before_s + 119 < ticket.expires_at_s < time.time() + 121
    wide = verify(tickets.parse((await lease(client))["ticket"]), signatures.public_key(PRIVATE))
    assert (wide.aud, wide.residency) == (("edge-fra", CLOUD_AUDIENCE), ("eu-central", "eu-west"))
    assert wide.jti != ticket.jti


async def test_who_does_not_say_who_he_is_gets_neither_lease_nor_answer_nor_figures(client: Client) -> None:
    asked = [
        ("POST", "/v1/route", b'{"model": "digits"}'),
        ("POST", "/v1/predict/digits", b"png"),
        ("GET", "/v1/explain?model=digits", None),
        ("GET", "/metrics", None),
        ("POST", "/v2/repository/index", b"{}"),
    ]
    for method, path, body in asked:
        for sent, status in (({}, 401), ({"Authorization": "Bearer guess"}, 401), ({"Authorization": "x"}, 401)):
            response, _ = await client.ask(method, path, body=body, sent=sent)
            assert (path, response.status) == (path, status)
        response, told = await client.ask(method, path, body=body, sent=KIOSK)
        assert response.status == 200, told
    for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):
        assert (await client.ask("GET", path))[0].status == 200


async def test_a_token_for_other_models_leases_asks_and_explains_those_only(client: Client) -> None:
    sent = {"Authorization": "Bearer f4ces"}
    for method, path, body in (
        ("POST", "/v1/route", b'{"model": "digits"}'),
        ("POST", "/v1/predict/digits", b"png"),
        ("GET", "/v1/explain?model=digits", None),
        ("GET", "/v2/models/digits", None),
    ):
        response, told = await client.ask(method, path, body=body, sent=sent)
        assert (path, response.status, json.loads(told)["code"]) == (path, 403, "forbidden")


async def test_the_callers_token_goes_no_further(client: Client, edge: Server) -> None:  # noqa: F811
    await client.predict(KIOSK)
    (seen,) = edge.seen
    assert "Authorization" not in seen.headers
    assert seen.headers["Foothill-Residency"] == "eu-central,eu-west"


async def test_without_a_key_there_is_no_ticket(router: Route, edge: Server) -> None:  # noqa: F811
    plain = await router([static("edge-fra", edge.url)], [])
    given = await plain.json("POST", "/v1/route", body=b'{"model": "digits"}')
    assert given["ticket"] == ""


async def test_it_listens_for_strangers_only_when_it_asks_them_or_was_told_to(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "router.example"):
        with pytest.raises(SettingsError, match="tokens_file"):
            await run(Config(host=host, broker_url="", state_dir=str(tmp_path)))


@pytest.mark.parametrize("text", ["", "s3cret", "ab" * 31, "ab" * 33])
async def test_a_key_file_that_holds_no_key_is_named(router: Route, tmp_path: Path, text: str) -> None:  # noqa: F811
    (tmp_path / "bad.key").write_text(text)
    with pytest.raises(SettingsError, match=r"tickets\.key_file"):
        await router([], [], tickets=TicketConfig(key_file=str(tmp_path / "bad.key")))
