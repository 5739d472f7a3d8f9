"""Tickets at a server: verified once, counted, forgotten; keys that come, go and cannot be had."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from contracts import tickets as form
from contracts.errors import FoothillError
from contracts.tickets import CLOUD_AUDIENCE, SKEW_S, Limits, Sealed, Ticket
from runtime.links.access.ticket_keys import TicketKeys
from runtime.links.access.tickets import TicketBook, sign
from runtime.links.trust import signatures
from runtime.links.trust.tuf import TrustedFleet
from tests.runtime.links.fleet_server import FleetServer
from tests.runtime.links.tuf_repository import TufRepository

NOW_S = 1_800_000_000.0
PRIVATE = signatures.generate()
PUBLIC = signatures.public_key(PRIVATE)


def ticket(**changes: Any) -> Ticket:
    fields: dict[str, Any] = {
        "jti": secrets.token_hex(8),
        "aud": ("fra", CLOUD_AUDIENCE),
        "tenant": "kiosk",
        "model": "digits",
        "residency": (),
        "limits": Limits(),
        "issued_at_s": NOW_S,
        "expires_at_s": NOW_S + 300,
    }
    return Ticket(**(fields | changes))


class Fleet:
    """A fleet's signed metadata over HTTP, and keys of tickets read from it."""

    def __init__(self, directory: Path) -> None:
        self.repository = TufRepository(directory / "fleet")
        self.server = FleetServer(self.repository.directory)
        self.directory = directory
        self.url = ""

    def publish(self, *public: str) -> None:
        self.repository.set_keys({key: ["ticket"] for key in public} | {"ab" * 32: ["desired"]})
        self.repository.publish()

    async def trust(self) -> TrustedFleet:
        return TrustedFleet(self.directory / "trust", self.url, self.repository.root_bytes)

    def keys(self, **options: float) -> TicketKeys:
        return TicketKeys(self.trust, **({"pause_s": 0.01, "patience_s": 20.0} | options))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    fleet.publish(PUBLIC)
    fleet.url = await fleet.server.start()
    yield fleet
    await fleet.server.stop()


class Server:
    """A book that lives."""

    def __init__(self, keys: TicketKeys, audience: str = "fra", most: int = 100) -> None:
        self.now_s = NOW_S
        self.book = TicketBook(keys, audience, lambda: self.now_s, most=most)
        self._life = keys.life(web.Application())

    async def __aenter__(self) -> Server:
        await self._life.__anext__()
        return self

    async def __aexit__(self, *_: object) -> None:
        async for _once in self._life:
            pass

    async def refusal(self, token: str, model: str | None = "digits") -> str:
        with pytest.raises(FoothillError) as refused:
            await self.book.grant(token, model)
        return refused.value.code


async def test_a_routers_ticket_lets_its_holder_in(fleet: Fleet) -> None:
    async with Server(fleet.keys()) as server:
        grant = await server.book.grant(sign(ticket(residency=("eu",)), PRIVATE), "digits")
        assert (grant.tenant, grant.models, grant.residency) == ("kiosk", ("digits",), ("eu",))
        assert len(server.book) == 1


async def test_what_is_forged_altered_or_of_a_foreign_key_is_not(fleet: Fleet) -> None:
    stranger, token = signatures.generate(), sign(ticket(), PRIVATE)
    sealed = form.parse(token)
    richer = signatures.sign(ticket(tenant="root"), stranger)
    forged = form.compact(Sealed(sealed.key_id, richer.payload, richer.signature))
    swapped = form.compact(Sealed(sealed.key_id, richer.payload, sealed.signature))
    # A desired document is signed by the fleet too, but as another kind of message.
    other_kind = signatures.sign(ticket().limits, PRIVATE)
    for bad in (
        forged,
        swapped,
        sign(ticket(), stranger),
        form.compact(Sealed(sealed.key_id, other_kind.payload, other_kind.signature)),
        token[:-8] + "AAAAAAAA",
    ):
        async with Server(fleet.keys()) as server:
            assert await server.refusal(bad) == "unauthorized"
            assert len(server.book) == 0


async def test_a_key_for_something_else_signs_no_tickets(fleet: Fleet) -> None:
    control = signatures.generate()
    fleet.repository.set_keys({signatures.public_key(control): ["desired", "identity", "certificate"]})
    fleet.repository.publish()
    async with Server(fleet.keys()) as server:
        assert await server.refusal(sign(ticket(), control)) == "unauthorized"


async def test_time_audience_and_model_are_held(fleet: Fleet) -> None:
    async with Server(fleet.keys()) as server:
        token = sign(ticket(), PRIVATE)
        await server.book.grant(token, "digits")
        assert await server.refusal(token, "faces") == "forbidden"
        assert await server.refusal(token, "") == "forbidden"
        await server.book.grant(token, None)
        assert await server.refusal(sign(ticket(aud=("iad",)), PRIVATE)) == "forbidden"
        server.now_s += 300 + SKEW_S + 1
        assert await server.refusal(token) == "ticket_expired"


async def test_a_tickets_signature_is_verified_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    before = signatures.verify

    def counting(signed: Any, keys: Any, kind: Any) -> Any:
        verified.append(signed.key_id)
        return before(signed, keys, kind)

    monkeypatch.setattr(signatures, "verify", counting)
    async with Server(fleet.keys()) as server:
        token = sign(ticket(limits=Limits(requests=60)), PRIVATE)
        await asyncio.gather(*(server.book.grant(token, "digits") for _ in range(50)))
        for _ in range(10):
            await server.book.grant(token, "digits")
        # Those that came before the key was there were verified one by one, but counted together.
        assert await server.refusal(token) == "rate_limited"
        verified.clear()
        assert await server.refusal(token) == "rate_limited"
        assert not verified


async def test_limits_are_counted_for_each_ticket(fleet: Fleet) -> None:
    async with Server(fleet.keys()) as server:
        token = sign(ticket(limits=Limits(requests=2, escalations=1, bytes=10)), PRIVATE)
        grant = await server.book.grant(token, "digits")
        grant.count_body(9)
        with pytest.raises(FoothillError) as refused:
            grant.count_body(2)
        assert (refused.value.code, refused.value.retry_after_s) == ("rate_limited", 1.0)
        grant.count_body(1)
        assert [grant.take_escalation(), grant.take_escalation()] == [True, False]
        await server.book.grant(token, "digits")
        assert await server.refusal(token) == "rate_limited"
        await server.book.grant(sign(ticket(limits=Limits(requests=2)), PRIVATE), "digits")


async def test_at_the_cloud_every_request_is_an_escalation(fleet: Fleet) -> None:
    async with Server(fleet.keys(), audience=CLOUD_AUDIENCE) as server:
        token = sign(ticket(limits=Limits(escalations=2)), PRIVATE)
        await server.book.grant(token, "digits")
        await server.book.grant(token, "digits")
        assert await server.refusal(token) == "rate_limited"


async def test_the_memory_of_tickets_is_bounded_and_expired_ones_go(fleet: Fleet) -> None:
    async with Server(fleet.keys(), most=3) as server:
        for _ in range(5):
            await server.book.grant(sign(ticket(), PRIVATE), "digits")
        assert len(server.book) == 3
        server.now_s += 600
        late = ticket(issued_at_s=server.now_s, expires_at_s=server.now_s + 60)
        await server.book.grant(sign(late, PRIVATE), "digits")
        assert len(server.book) == 1


async def test_a_new_key_is_learnt_and_one_taken_back_is_believed_no_more(fleet: Fleet) -> None:
    second = signatures.generate()
    old = sign(ticket(), PRIVATE)
    async with Server(fleet.keys()) as server:
        await server.book.grant(old, "digits")
        fleet.publish(signatures.public_key(second))
        await server.book.grant(sign(ticket(), second), "digits")
        assert await server.refusal(old) == "unauthorized"


async def test_with_the_fleet_away_the_keys_known_before_hold_over_a_restart(fleet: Fleet) -> None:
    async with Server(fleet.keys()) as server:
        await server.book.grant(sign(ticket(), PRIVATE), "digits")
    await fleet.server.stop()
    async with Server(fleet.keys()) as server:
        await server.book.grant(sign(ticket(), PRIVATE), "digits")
        assert await server.refusal(sign(ticket(), signatures.generate())) == "unavailable"
        await server.book.grant(sign(ticket(), PRIVATE), "digits")


async def test_unknown_keys_cannot_hold_up_known_ones(fleet: Fleet) -> None:
    """Whoever makes keys up waits for the fleet; callers with good tickets do not wait with him."""
    async with Server(fleet.keys(pause_s=60.0)) as server:
        await server.book.grant(sign(ticket(), PRIVATE), "digits")
        waiting = [asyncio.create_task(server.book.grant(sign(ticket(), signatures.generate()), "digits"))]
        waiting += [asyncio.create_task(server.book.grant(sign(ticket(), signatures.generate()), "digits"))]
        await server.book.grant(sign(ticket(), PRIVATE), "digits")
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    with pytest.raises(FoothillError) as refused:
        await fleet.keys(patience_s=0.01).find("0" * 16)
    assert refused.value.code == "unavailable"
