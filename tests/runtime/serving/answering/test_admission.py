"""Who calls is asked before anything is read: over real sockets, at a node and at the cloud tier."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import msgspec
import numpy as np
import pytest
from aiohttp import web

from contracts.messages import Certificate
from contracts.tickets import CLOUD_AUDIENCE, Limits, Ticket
from runtime.links.access.admission import Admission, AuthConfig, open_admission
from runtime.links.access.hop import sign_hop
from runtime.links.access.ticket_keys import TicketKeys
from runtime.links.access.tickets import TicketBook, sign
from runtime.links.access.tokens import TokenFile
from runtime.links.escalation.holder import Certificates, Holder
from runtime.links.http.upstream import Upstreams
from runtime.links.process.telemetry import Telemetry
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from runtime.serving.answering.settings import ServingSettings
from runtime.serving.app import create_app
from runtime.serving.models.hosting import ModelHost
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository
from tests.runtime.serving.conftest import HOP_KEY, Load, Serve
from tests.runtime.serving.test_app import certain, picture

PRIVATE = signatures.generate()
PNG = {"Content-Type": "image/png"}


def bearer(token: str) -> dict[str, str]:
    return {**PNG, "Authorization": f"Bearer {token}"}


def ticket(**changes: Any) -> str:
    now_s = time.time()
    fields: dict[str, Any] = {
        "jti": f"{random.random()}",
        "aud": ("fra-1", CLOUD_AUDIENCE),
        "tenant": "kiosk",
        "model": "digits",
        "residency": (),
        "limits": Limits(),
        "issued_at_s": now_s,
        "expires_at_s": now_s + 60,
    }
    return sign(Ticket(**(fields | changes)), PRIVATE)


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[TicketKeys]:
    repository = TufRepository(tmp_path / "fleet")
    repository.set_keys({signatures.public_key(PRIVATE): ["ticket"]})
    repository.publish()
    server = FleetServer(repository.directory)
    url = await server.start()

    async def trust() -> TrustedFleet:
        return TrustedFleet(tmp_path / "trust", url, repository.root_bytes)

    yield TicketKeys(trust, patience_s=20.0)
    await server.stop()


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    path = tmp_path / "tokens.toml"
    entries = [("kiosk", "s3cret", ""), ("faces-only", "f4ces", 'models = ["faces"]'), ("one", "0ne", "")]
    path.write_text(
        "\n".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{more}'
            for name, token, more in entries
        )
    )
    return TokenFile(path, time.monotonic)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Asked:
    """A server that asks who calls."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def post(self, path: str = "/v1/predict/digits", body: Any = None, **sent: str) -> tuple[int, str]:
        given = {name.replace("_", "-"): value for name, value in sent.items()}
        data = picture() if body is None else body
        async with self._session.post(self.url + path, data=data, headers=PNG | given) as answer:
            text = await answer.read()
            return answer.status, "" if answer.status == 200 else msgspec.json.decode(text)["code"]

    async def get(self, path: str, token: str = "") -> int:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.get(self.url + path, headers=given) as answer:
            return answer.status


def serving(
    host: ModelHost, keys: TicketKeys | None, tokens: TokenFile | None, *, audience: str = "fra-1", **more: Any
) -> web.Application:
    book = TicketBook(keys, audience, time.time) if keys is not None else None
    admission = Admission(tokens=tokens, tickets=book, admin_token="adm1n", hop_key=HOP_KEY)
    settings = ServingSettings(node="fra-1", tier="edge", hop_key=HOP_KEY, region="eu", admin_token="adm1n")
    app = create_app(
        host, settings, holder=more.pop("holder", None), telemetry=Telemetry(), admission=admission, **more
    )
    if keys is not None:
        app.cleanup_ctx.append(keys.life)
    return app


@pytest.fixture
async def asked(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession, keys: TicketKeys, tokens: TokenFile
) -> Asked:
    await host.activate("digits", load(bias=certain(7)))
    return Asked(await serve(app=serving(host, keys, tokens)), session)


async def test_tokens_tickets_hops_and_the_admin_are_let_in(asked: Asked) -> None:
    for token in ("s3cret", "adm1n", ticket()):
        assert await asked.post(Authorization=f"Bearer {token}") == (200, "")
        assert await asked.post(Authorization=f"bearer  {token} ") == (200, "")
    mark = sign_hop(HOP_KEY, "router", "r-1", time.time())
    assert await asked.post(Foothill_Hop=mark, Foothill_Request_Id="r-1") == (200, "")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, (401, "unauthorized")),
        ({"Authorization": "Basic czNjcmV0"}, (401, "unauthorized")),
        ({"Authorization": "Bearer"}, (401, "unauthorized")),
        ({"Authorization": "Bearer guess"}, (401, "unauthorized")),
        ({"Authorization": "Bearer ft1.guess"}, (401, "unauthorized")),
        ({"Authorization": "Bearer ft1." + "0" * 16 + "." + "A" * 7000 + "." + "A" * 86}, (401, "unauthorized")),
        ({"Authorization": "Bearer f4ces"}, (403, "forbidden")),
        ({"Foothill_Hop": "router;1800000000;" + "0" * 64}, (401, "unauthorized")),
        ({"Foothill_Hop": "router;9999999999;" + "f" * 64, "Foothill_Request_Id": "r"}, (401, "unauthorized")),
    ],
)
async def test_others_are_told_why_not(asked: Asked, sent: dict[str, str], expected: tuple[int, str]) -> None:
    assert await asked.post(**sent) == expected


async def test_a_mark_holds_for_its_own_request_and_its_own_minute(asked: Asked) -> None:
    for request_id, at_s in (("r-2", time.time()), ("r-1", time.time() - 120), ("r-1", time.time() + 120)):
        mark = sign_hop(HOP_KEY, "router", "r-1", at_s)
        assert (await asked.post(Foothill_Hop=mark, Foothill_Request_Id=request_id))[0] == 401
    stolen = sign_hop(b"x" * 32, "router", "r-1", time.time())
    assert (await asked.post(Foothill_Hop=stolen, Foothill_Request_Id="r-1"))[0] == 401


async def test_tickets_are_held_to_what_they_say(asked: Asked) -> None:
    now_s = time.time()
    for changes, expected in (
        ({"model": "faces"}, (403, "forbidden")),
        ({"aud": ("iad-1",)}, (403, "forbidden")),
        ({"issued_at_s": now_s - 600, "expires_at_s": now_s - 300}, (401, "ticket_expired")),
        ({"residency": ("us",)}, (403, "residency_denied")),
        ({"limits": Limits(bytes=10)}, (429, "rate_limited")),
    ):
        assert await asked.post(Authorization=f"Bearer {ticket(**changes)}") == expected
    narrow = f"Bearer {ticket(residency=('eu', 'ch'))}"
    assert await asked.post(Authorization=narrow) == (200, "")
    assert await asked.post(Authorization=narrow, Foothill_Residency="us") == (403, "residency_denied")
    assert await asked.post(Authorization=narrow, Foothill_Residency="ch") == (403, "residency_denied")
    once = f"Bearer {ticket(limits=Limits(requests=1))}"
    assert [await asked.post(Authorization=once) for _ in range(2)] == [(200, ""), (429, "rate_limited")]


@pytest.mark.parametrize("side", [28, 400])
async def test_every_request_and_every_byte_counts_once_whichever_way_it_takes(asked: Asked, side: int) -> None:
    """The first request waits for the ticket's key, others do not; a large picture is begun on one way and ends on
    another."""
    flat = bytes(cv2.imencode(".png", np.zeros((side, side), np.uint8))[1])
    for limits in (Limits(requests=3), Limits(bytes=3 * len(flat)), Limits(bytes=4 * len(flat) - 1)):
        token = f"Bearer {ticket(limits=limits)}"
        told = [await asked.post(body=flat, Authorization=token) for _ in range(4)]
        assert told == [(200, "")] * 3 + [(429, "rate_limited")]


async def test_probes_are_open_and_what_tells_more_is_not(asked: Asked) -> None:
    for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):
        assert await asked.get(path) == 200
    own, lease = ("/metrics", "/v2", "/v2/models/stats"), ("/v2/models/digits", "/v2/models/digits/ready")
    for path in (*own, *lease, "/v1/nothing"):
        assert await asked.get(path) == 401
    for path in own:
        assert [await asked.get(path, token) for token in ("s3cret", "adm1n", ticket())] == [200, 200, 403]
    for path in lease:
        assert [await asked.get(path, token) for token in ("s3cret", "f4ces", ticket())] == [200, 403, 200]
    assert await asked.post("/v2/repository/index", b"{}") == (401, "unauthorized")
    assert await asked.post("/v2/repository/models/digits/load", b"", Authorization="Bearer s3cret") == (
        403,
        "forbidden",
    )
    assert await asked.get("/v1/nothing", "s3cret") == 404


async def test_who_is_not_let_in_is_told_before_the_body_is_read(asked: Asked) -> None:
    sent = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await sent.wait()
        yield b"x"

    assert await asked.post(body=body()) == (401, "unauthorized")
    sent.set()


async def test_at_the_cloud_tickets_for_the_cloud_are_taken(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession, keys: TicketKeys
) -> None:
    await host.activate("digits", load(bias=certain(7)))
    cloud = Asked(await serve(app=serving(host, keys, None, audience=CLOUD_AUDIENCE)), session)
    two = f"Bearer {ticket(limits=Limits(escalations=2))}"
    statuses = [await cloud.post(Authorization=two) for _ in range(3)]
    assert statuses == [(200, ""), (200, ""), (429, "rate_limited")]
    assert await cloud.post(Authorization=f"Bearer {ticket(aud=('fra-1',))}") == (403, "forbidden")
    assert await cloud.post(Authorization="Bearer s3cret") == (401, "unauthorized")


async def test_a_ticket_whose_escalations_are_used_up_gets_the_edges_answers(
    host: ModelHost, load: Load, serve: Serve, session: aiohttp.ClientSession, keys: TicketKeys
) -> None:
    asked_cloud: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked_cloud.append(request.headers.get("Authorization", ""))
        own = {"Foothill-Tier": "cloud", "Foothill-Request-Id": request.headers["Foothill-Request-Id"]}
        return web.json_response({"reason": "cloud"}, headers=own)

    cloud = web.Application()
    cloud.router.add_post("/v1/predict/digits", answer)
    loaded = load()
    await host.activate("digits", loaded)
    live = Certificate(loaded.stratum, "digits", 2.0, 0.1, 0.1, 1, "live", 1, 0.0)
    upstreams = Upstreams()
    holder = Holder(
        node="fra-1",
        cloud_urls=[await serve(app=cloud)],
        upstreams=upstreams,
        certificates=Certificates([live]),
        hop_key=HOP_KEY,
        hop_name="node",
        publish_audit=lambda audit: None,
        telemetry=Telemetry(),
        rng=random.Random(0),
        audit_rate=0.0,
    )
    url = await serve(app=serving(host, keys, None, holder=holder))
    sent = bearer(ticket(limits=Limits(escalations=1)))
    told = []
    for _ in range(3):
        async with session.post(f"{url}/v1/predict/digits", data=picture(), headers=sent) as given:
            told.append((given.status, given.headers["Foothill-Reason"], given.headers["Foothill-Degraded"]))
    assert told == [(200, "doubtful", "false"), (200, "budget", "true"), (200, "budget", "true")]
    assert asked_cloud == [""]
    await holder.close()
    await upstreams.close()


def test_who_configures_nothing_asks_nobody(tmp_path: Path) -> None:
    assert open_admission(AuthConfig(), keys=None, audience="fra-1") is None
    assert not AuthConfig().asks
    assert AuthConfig(tickets=True).asks
