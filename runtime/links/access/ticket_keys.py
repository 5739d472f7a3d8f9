"""The public keys of tickets, from the fleet's signed metadata: at hand at once, refreshed behind the requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from contracts.errors import FoothillError
from runtime.links.process.within import within
from runtime.links.trust.tuf import TrustedFleet, TrustUnavailable

log = logging.getLogger(__name__)

REFRESH_EVERY_S = 300.0
"""A key that the fleet takes back is believed for so long at most, while the fleet can be reached."""
PAUSE_S = 5.0
PATIENCE_S = 2.0


class TicketKeys:
    """Key id to public hex. `open_fleet` gives the fleet's metadata, which works off line with what it verified before.

    Refreshed every 5 minutes, and when an unknown key appears, at most every 5 s. Requests under known keys never wait.
    """

    def __init__(
        self,
        open_fleet: Callable[[], Awaitable[TrustedFleet]],
        *,
        every_s: float = REFRESH_EVERY_S,
        pause_s: float = PAUSE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._open_fleet = open_fleet
        self._every_s = every_s
        self._pause_s = pause_s
        self._patience_s = patience_s
        self._known: dict[str, str] = {}
        self._wanted = asyncio.Event()
        self._looked = asyncio.Condition()
        self._said = ""
        self._away = True

    def known(self, key_id: str) -> str | None:
        return self._known.get(key_id)

    def live_in(self, app: web.Application) -> None:
        """Keeps the keys fresh for as long as an application runs."""
        app.cleanup_ctx.append(self.life)

    async def life(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._keep_fresh())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def find(self, key_id: str) -> str:
        """The key, once the fleet was asked again, or for 2 s at most.

        Raises FoothillError `unauthorized` for a key that the fleet does not name, `unavailable` while nobody can tell.
        """
        self._wanted.set()
        looked = await self._looked_within(self._patience_s)
        found = self._known.get(key_id)
        if found is not None:
            return found
        if self._away or not looked:
            raise FoothillError(
                "unavailable",
                f"The ticket is signed by key {key_id}, which this server does not know yet; its fleet manager has not "
                "answered. Try again.",
            )
        raise FoothillError(
            "unauthorized",
            f"The ticket is signed by key {key_id}, which the fleet does not name. The router's tickets.key_file must "
            "be one of this fleet's keys/ticket*.key; ask for a new lease when it is.",
        )

    async def _looked_within(self, seconds: float) -> bool:
        async def look() -> None:
            async with self._looked:
                await self._looked.wait()

        try:
            await within(look(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def _keep_fresh(self) -> None:
        while True:
            self._wanted.clear()
            await self._look()
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(self._pause_s)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._wanted.wait(), self._every_s)

    async def _look(self) -> None:
        """One refresh. With the fleet away, what it signed before goes on to hold."""
        try:
            fleet = await self._open_fleet()
            self._known = self._known or await asyncio.to_thread(_kept, fleet)
            await asyncio.to_thread(fleet.refresh)
            self._known, self._away, problem = await asyncio.to_thread(fleet.keys, "ticket"), False, ""
        except (FoothillError, OSError) as error:
            self._away, problem = True, str(error)
        if problem != self._said:
            log.warning("ticket keys stay as they are (%d known): %s", len(self._known), problem or "the fleet answers")
            self._said = problem


def _kept(fleet: TrustedFleet) -> dict[str, str]:
    try:
        return fleet.keys("ticket")
    except TrustUnavailable:
        return {}
