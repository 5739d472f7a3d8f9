"""Whose signature a process believes: the keys in the fleet's signed metadata, by what they may sign."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import get_args

from contracts.errors import FoothillError
from contracts.targets import Use
from runtime.links.trust.tuf import TrustedFleet, TrustUnavailable

log = logging.getLogger(__name__)

REFRESH_PAUSE_S = 5.0


class FleetKeys:
    """Keys by use and id, refreshed when an unknown one signs something, at most every 5 s.

    `open_fleet` gives the fleet's metadata, once. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        open_fleet: Callable[[], Awaitable[TrustedFleet]],
        clock: Callable[[], float],
        *,
        refresh_pause_s: float = REFRESH_PAUSE_S,
    ) -> None:
        self._open_fleet = open_fleet
        self._clock = clock
        self._refresh_pause_s = refresh_pause_s
        self._fleet: TrustedFleet | None = None
        self._keys: dict[Use, dict[str, str]] = {}
        self._ask_again_at_s = float("-inf")
        self._asking = asyncio.Lock()

    async def holding(self, use: Use, key_id: str) -> Mapping[str, str]:
        """All keys for `use` (key id to public hex). Where `key_id` is not among them, the fleet was asked just now.

        Raises FoothillError: `unavailable` when the key is unknown and the fleet is away or was asked less than 5 s
        ago, so that nobody can tell yet; `forbidden` when the fleet's metadata must not be believed.
        """
        async with self._asking:
            now_s = self._clock()
            if key_id not in self._keys.get(use, {}):
                if now_s < self._ask_again_at_s:
                    raise FoothillError("unavailable", "A key is unknown, and the fleet was asked a moment ago.")
                self._ask_again_at_s = now_s + self._refresh_pause_s
                await self._refresh(use, key_id)
            return self._keys[use]

    async def _refresh(self, use: Use, key_id: str) -> None:
        """With the fleet away, what it signed before goes on to hold."""
        if self._fleet is None:
            self._fleet = await self._open_fleet()
        fleet = self._fleet
        try:
            await asyncio.to_thread(fleet.refresh)
        except TrustUnavailable as error:
            log.info("the fleet is away, using what it signed before: %s", error)
            self._keys = await asyncio.to_thread(_all_of, fleet)
            if key_id not in self._keys[use]:
                raise
        else:
            self._keys = await asyncio.to_thread(_all_of, fleet)


def _all_of(fleet: TrustedFleet) -> dict[Use, dict[str, str]]:
    uses: tuple[Use, ...] = get_args(Use)
    return {use: fleet.keys(use) for use in uses}
