"""Counting the requests that run a model, whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from contracts.errors import FoothillError
from contracts.timing import TOTAL
from runtime.links.telemetry import Telemetry
from runtime.links.timed import STARTED_S

Story = Callable[[web.Request], Awaitable[web.Response]]
CLIENT_GONE = 499


class Account(msgspec.Struct):
    """What is counted of one request. `model` stays empty for one that is not served, to keep labels few.

    `phases_ms` are those known so far; one that fails before it has measured its own total counts with all its time.
    """

    tier: str
    model: str = ""
    reason: str = "internal"
    status: int = 500
    phases_ms: Mapping[str, float] = {}

    def answered(self, tier: str, reason: str, phases_ms: Mapping[str, float]) -> None:
        self.tier, self.reason, self.status, self.phases_ms = tier, reason, 200, phases_ms

    def failed(self, code: str, status: int) -> None:
        self.reason, self.status = code, status


ACCOUNT = web.RequestKey("account", Account)


def counted(route: str, story: Story, *, telemetry: Telemetry, part: str, clock: Callable[[], float]) -> Story:
    """`story` with an account that it fills, counted when it ends. An error counts under its code as the reason."""
    in_flight = telemetry.in_flight(part)

    async def handler(request: web.Request) -> web.Response:
        account = request[ACCOUNT] = Account(part)
        arrived_s = clock()
        try:
            with in_flight.track_inprogress():
                return await story(request)
        except FoothillError as error:
            account.failed(error.code, error.status)
            raise
        except asyncio.CancelledError:
            account.failed("client-gone", CLIENT_GONE)
            raise
        finally:
            telemetry.observe(
                part=part,
                route=route,
                model=account.model,
                tier=account.tier,
                reason=account.reason,
                status=account.status,
                phases_ms={TOTAL: (clock() - request.get(STARTED_S, arrived_s)) * 1000.0, **account.phases_ms},
            )

    return handler
