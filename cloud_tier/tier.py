"""Bringing the cloud's models up: each from a verified bundle, tried until it is served."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from contracts.errors import FoothillError
from contracts.manifest import is_digest

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0

Fetch = Callable[[str, str], Awaitable[Path]]
"""(model, digest) to the verified bundle directory in the store."""

Serve = Callable[[str, str], Awaitable[None]]
"""(model, digest): loads a bundle of the store, holds it to its golden test, and serves it."""


class Resolves(Protocol):
    """Blocks, like the fleet's trusted metadata that it asks."""

    def resolve(self, model: str, reference: str) -> str:
        """The digest of NAME@VERSION."""
        ...


class Tier:
    """The models of one process. `trust` gives the fleet's metadata, once there is a root to believe in."""

    def __init__(
        self,
        models: Mapping[str, str],
        *,
        trust: Callable[[], Awaitable[Resolves]],
        fetch: Fetch,
        serve: Serve,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._models = models
        self._trust = trust
        self._fetch = fetch
        self._serve = serve
        self._rng = rng
        self._sleep = sleep

    async def bring_up(self) -> None:
        """Returns when every model is served; waits for a fleet that is away, or that lacks a bundle, for ever."""
        await asyncio.gather(*(self._until_served(model, bundle) for model, bundle in self._models.items()))
        log.info("every model is served: %s", ", ".join(sorted(self._models)) or "none is configured")

    async def _until_served(self, model: str, bundle: str) -> None:
        """Tries with growing pauses; says what is in the way each time that it is something else."""
        pause_s, said = FIRST_PAUSE_S, ""
        while (error := await self._try(model, bundle)) is not None:
            if error != said:
                log.warning("%s waits for bundle %s: %s", model, bundle, error)
                said = error
            await self._sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _try(self, model: str, bundle: str) -> str | None:
        """One attempt; what went wrong, or None. A bad bundle may be published anew, so that nothing is final."""
        try:
            await self._bring_up_model(model, bundle)
        except FoothillError as error:
            return error.message
        except OSError as error:
            return f"the disk fails: {error}"
        return None

    async def _bring_up_model(self, model: str, bundle: str) -> None:
        """The story of one model: name, digest, verified bytes, tested and served."""
        digest = bundle if is_digest(bundle) else await self._resolve(model, bundle)
        await self._fetch(model, digest)
        await self._serve(model, digest)

    async def _resolve(self, model: str, reference: str) -> str:
        trust = await self._trust()
        return await asyncio.to_thread(trust.resolve, model, reference)
