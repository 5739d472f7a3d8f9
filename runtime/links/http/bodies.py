"""Request bodies: whole, decompressed, within a limit and a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from contracts.deadlines import Deadline
from contracts.errors import FoothillError


async def read_body(request: web.Request, limit: int, deadline: Deadline, clock: Callable[[], float]) -> bytes:
    """The body, without a copy where it came in one piece. `limit` in bytes, after decompression.

    Raises FoothillError `body_too_large`, `bad_request` for one that breaks off, or `deadline_exceeded`.
    """
    declared = request.content_length
    if declared is not None and declared > limit:
        raise too_large(limit)
    if request.content.is_eof():
        return await _read(request, limit)
    try:
        return await asyncio.wait_for(_read(request, limit), deadline.left_s(clock()))
    except asyncio.TimeoutError:
        raise too_slow() from None


async def _read(request: web.Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        # Not `async for`: it would ask once more for the end, which is known.
        while not request.content.at_eof():
            part = await request.content.readany()
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
    except (web.RequestPayloadError, ConnectionError) as error:
        raise FoothillError(
            "bad_request", f"The body breaks off or is encoded wrongly ({error}). Send it again."
        ) from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int) -> FoothillError:
    return FoothillError(
        "body_too_large", f"The body has more than {limit} bytes. Send less, or raise max_body_bytes of this server."
    )


def too_slow() -> FoothillError:
    return FoothillError(
        "deadline_exceeded",
        "The deadline passed before the whole body had come. Send it faster, smaller, or with more time.",
    )
