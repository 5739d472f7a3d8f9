"""One request as the answer path sees it: its terms, its deadline, its body, and the times of its phases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from aiohttp import web

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.timing import TOTAL
from runtime.links.hop import Hop
from runtime.links.upstream import Request

Clock = Callable[[], float]


class Call(msgspec.Struct, kw_only=True):
    """`hop` is who verifiably sent the request on, and so holds it; None for a caller from outside.

    `started_s` is when the body was there: what came before is the network's time, not this server's.
    """

    request_id: str
    model: str
    version: str
    terms: Terms
    deadline: Deadline
    hop: Hop | None
    body: bytes
    started_s: float
    clock: Clock
    rows: int = 0
    phases_ms: dict[str, float] = msgspec.field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time of its block to the phase `name`."""
        begun_s = self.clock()
        try:
            yield
        finally:
            self.phases_ms[name] = self.phases_ms.get(name, 0.0) + (self.clock() - begun_s) * 1000.0

    def narrow(self, microseconds: int) -> None:
        """Moves the deadline closer, for the protocol's own `timeout`; 0 is none."""
        if microseconds:
            own = Deadline.after(microseconds / 1000.0, now_s=self.started_s)
            self.deadline = min(self.deadline, own, key=lambda deadline: deadline.expires_at_s)

    def with_total(self, phases_ms: dict[str, float]) -> dict[str, float]:
        return {**phases_ms, TOTAL: (self.clock() - self.started_s) * 1000.0}

    def onward(self, request: web.Request) -> Request:
        """The request for another hop. Its body was decoded on arrival, so its encoding is not named any more."""
        sent = {name: value for name, value in request.headers.items() if name.lower() != "content-encoding"}
        sent[headers.REQUEST_ID] = self.request_id
        return Request(request.method, str(request.rel_url), sent, self.body)


async def read_body(request: web.Request, limit: int, deadline: Deadline, clock: Clock) -> bytes:
    """The whole body, decompressed, read without a copy where it came in one piece.

    Raises FoothillError `body_too_large`, `bad_request` for one that breaks off, or `deadline_exceeded`.
    """
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit)
    if request.content.is_eof():
        body = await _read(request, limit)
    else:
        try:
            body = await asyncio.wait_for(_read(request, limit), deadline.left_s(clock()))
        except asyncio.TimeoutError:
            raise FoothillError(
                "deadline_exceeded",
                "The deadline passed before the whole body had come. Send it faster, smaller, or with more time.",
            ) from None
    return body


async def _read(request: web.Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.content.iter_any():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
    except (web.RequestPayloadError, ConnectionError) as error:
        raise FoothillError(
            "bad_request", f"The body breaks off or is encoded wrongly ({error}). Send it again."
        ) from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> FoothillError:
    return FoothillError(
        "body_too_large", f"The body has more than {limit} bytes. Send less, or raise max_body_bytes of this server."
    )
