"""The client for asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TypeVar

from contracts.headers import Escalation
from contracts.leases import Lease
from contracts.places import Place
from foothill.client import wishes
from foothill.client.answers import Inferred, Predicted, Settled, read_inferred, read_predicted
from foothill.client.connections import AsyncConnections, Wiring
from foothill.client.failures import RequestError, reading
from foothill.client.lease_book import Subject
from foothill.client.session import DEFAULT_DEADLINE_MS, Exchange, Session, Started
from foothill.client.tensors import Given
from foothill.client.wishes import Terms, Wish

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same arguments, methods and errors. A lease is renewed behind the requests."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        deadline_ms: float | None = None,
        connect_to: Mapping[str, str] | None = None,
        place: Place | None = None,
        lease: bool = True,
        tls: ssl.SSLContext | None = None,
        trust_env: bool = True,
        token: str = "",
    ) -> None:
        self._session = Session(
            url,
            direct=not lease,
            own_headers=headers or {},
            deadline_ms=deadline_ms or DEFAULT_DEADLINE_MS,
            place=place,
            clock=time.monotonic,
            token=token,
        )
        self._connections = AsyncConnections(Wiring(connect_to or {}, tls, trust_env=trust_env))
        self._asking: dict[Subject, asyncio.Lock] = {}
        self._renewals: dict[Subject, asyncio.Task[None]] = {}

    async def predict(
        self,
        model: str,
        image: bytes,
        media_type: str | None = None,
        *,
        escalation: Escalation = "auto",
        residency: Sequence[str] | None = None,
        deadline_ms: float | None = None,
        capabilities: Sequence[str] = (),
    ) -> Predicted:
        """See `Client.predict`."""
        terms = Terms(escalation=escalation, residency=residency, deadline_ms=deadline_ms, capabilities=capabilities)
        wish = wishes.predict(model, image, media_type, self._session.own_headers, terms)
        settled = await self._perform(wish)
        with reading(wish.request_id):
            return read_predicted(settled)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Given],
        outputs: Sequence[str] = (),
        *,
        escalation: Escalation = "auto",
        residency: Sequence[str] | None = None,
        deadline_ms: float | None = None,
        capabilities: Sequence[str] = (),
    ) -> Inferred:
        """See `Client.infer`."""
        terms = Terms(escalation=escalation, residency=residency, deadline_ms=deadline_ms, capabilities=capabilities)
        wish = wishes.infer(model, inputs, outputs, self._session.own_headers, terms)
        settled = await self._perform(wish)
        with reading(wish.request_id):
            return read_inferred(settled)

    async def lease(
        self, model: str, *, residency: Sequence[str] | None = None, capabilities: Sequence[str] = ()
    ) -> Lease:
        """See `Client.lease`."""
        subject = Subject.of(model, residency, capabilities)
        await self._ask_if_needed(subject, self._session.start(None))
        return self._session.leased(subject)

    async def close(self) -> None:
        renewals = list(self._renewals.values())
        for renewal in renewals:
            renewal.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)
        await self._connections.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _perform(self, wish: Wish) -> Settled:
        started = self._session.start(wish.deadline_ms)
        asked = await self._ask_if_needed(wish.subject, started)
        return await self._drive(self._session.call(wish, started, asked=asked))

    async def _ask_if_needed(self, subject: Subject, started: Started) -> bool:
        """Whether the call had to wait for a lease."""
        if self._session.must_ask(subject, renews_behind=True):
            async with self._asking.setdefault(subject, asyncio.Lock()):
                if self._session.must_ask(subject, renews_behind=True):
                    await self._drive(self._session.ask(subject, started.deadline))
            return True
        if self._session.due(subject) and subject not in self._renewals:
            self._renewals[subject] = asyncio.create_task(self._renew(subject))
        return False

    async def _renew(self, subject: Subject) -> None:
        try:
            await self._drive(self._session.ask(subject, self._session.start(None).deadline))
        except RequestError:
            # The router refused the subject and the lease is gone: the next call asks again and gets to hear why.
            return
        finally:
            del self._renewals[subject]

    async def _drive(self, exchange: Exchange[T]) -> T:
        try:
            send = next(exchange)
            while True:
                send = exchange.send(await self._connections.send(send))
        except StopIteration as end:
            result: T = end.value
            return result
