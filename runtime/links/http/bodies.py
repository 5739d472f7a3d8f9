"""Request bodies: whole, decompressed, within a limit and a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.http.spool import Spool

SMALL_BYTES, SMALL_S = 1 << 16, 30.0


async def read_body(request: web.Request, limit: int, deadline: Deadline, clock: Callable[[], float]) -> bytes:
    """The body, without a copy where it came in one piece. `limit` in bytes, after decompression.

    Raises FoothillError `body_too_large`, `bad_request` for one that breaks off, or `deadline_exceeded`.
    """
    _check_declared(request, limit)
    if request.content.is_eof():
        return await _read(request, limit)
    try:
        return await asyncio.wait_for(_read(request, limit), deadline.left_s(clock()))
    except asyncio.TimeoutError:
        raise too_slow() from None


async def read_small(request: web.Request, *, limit: int = SMALL_BYTES, within_s: float = SMALL_S) -> bytes:
    """A body of a few lines, of a route that has no deadline of its own. Raises as `read_body`."""
    return await read_body(request, limit, Deadline.after(within_s * 1000.0, now_s=time.monotonic()), time.monotonic)


async def store_body(
    request: web.Request, limit: int, above: int, deadline: Deadline, clock: Callable[[], float]
) -> bytes | Spool:
    """As `read_body`, but a body of more than `above` bytes is written to disk as it comes.

    Raises FoothillError `unavailable` too, where the disk does not take it.
    """
    _check_declared(request, limit)
    try:
        return await asyncio.wait_for(_store(request, limit, above), deadline.left_s(clock()))
    except asyncio.TimeoutError:
        raise too_slow() from None


def _check_declared(request: web.Request, limit: int) -> None:
    if request.content_length is not None and request.content_length > limit:
        raise too_large(limit)


async def _read(request: web.Request, limit: int) -> bytes:
    parts = [part async for part in _parts(request, limit)]
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _store(request: web.Request, limit: int, above: int) -> bytes | Spool:
    kept: list[bytes] = []
    size, spool = 0, None
    async for part in _parts(request, limit):
        size += len(part)
        if spool is None and size > above:
            spool = Spool(0)
            await spool.append(b"".join(kept))
        if spool is None:
            kept.append(part)
        else:
            await spool.append(part)
    if spool is None:
        return b"".join(kept)
    spool.end()
    return spool


async def _parts(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    try:
        # Not `async for`: it would ask once more for the end, which is known.
        while not request.content.at_eof():
            part = await request.content.readany()
            size += len(part)
            if size > limit:
                raise too_large(limit)
            yield part
    except (web.RequestPayloadError, ConnectionError) as error:
        raise FoothillError(
            "bad_request", f"The body breaks off or is encoded wrongly ({error}). Send it again."
        ) from error


def too_large(limit: int) -> FoothillError:
    return FoothillError(
        "body_too_large", f"The body has more than {limit} bytes. Send less, or raise max_body_bytes of this server."
    )


def too_slow() -> FoothillError:
    return FoothillError(
        "deadline_exceeded",
        "The deadline passed before the whole body had come. Send it faster, smaller, or with more time.",
    )
