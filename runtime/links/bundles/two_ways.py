"""HTTP where the registry can be reached, and chunks over MQTT where only the broker can."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from tuf.ngclient.fetcher import FetcherInterface

from contracts.manifest import File
from runtime.links.bundles.blob_http import Unreachable
from runtime.links.bundles.fetch import Way, Ways
from runtime.links.bundles.store import BundleStore
from runtime.links.trust.tuf import FleetUnreachable

log = logging.getLogger(__name__)

AGAIN_S = 600.0


class Reach:
    """Whether the registry was reached the last time; where it was not, it is asked again after ten minutes.

    Used from several threads: a stale answer costs one attempt.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, again_s: float = AGAIN_S) -> None:
        self._clock = clock
        self._again_s = again_s
        self._closed_until_s = float("-inf")
        self._told = False

    @property
    def open(self) -> bool:
        return self._clock() >= self._closed_until_s

    def failed(self, why: str) -> None:
        self._closed_until_s = self._clock() + self._again_s
        if not self._told:
            log.warning("the registry cannot be reached, going on over MQTT: %s", why)
        self._told = True

    def worked(self) -> None:
        if self._told:
            log.info("the registry can be reached again")
        self._told = False


def two_ways(http: Ways, chunks: Ways, reach: Reach) -> Ways:
    """Each goes on from what the other has left; the second is opened when it is needed."""

    @asynccontextmanager
    async def ways() -> AsyncIterator[Way]:
        async with AsyncExitStack() as opened:
            yield _TwoWays(await opened.enter_async_context(http()), chunks, opened, reach)

    return ways


class _TwoWays:
    def __init__(self, http: Way, chunks: Ways, opened: AsyncExitStack, reach: Reach) -> None:
        self._http = http
        self._open_chunks = chunks
        self._opened = opened
        self._reach = reach
        self._chunks: Way | None = None

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        if self._reach.open:
            try:
                await self._http.bring(store, file, told)
            except Unreachable as error:
                self._reach.failed(error.message)
            else:
                self._reach.worked()
                return
        if self._chunks is None:
            self._chunks = await self._opened.enter_async_context(self._open_chunks())
        await self._chunks.bring(store, file, told)


class TwoFetchers(FetcherInterface):
    """The same for signed metadata. What breaks off in the middle is begun anew by whoever asks again."""

    def __init__(self, http: FetcherInterface, chunks: FetcherInterface, reach: Reach) -> None:
        self._http = http
        self._chunks = chunks
        self._reach = reach

    def _fetch(self, url: str) -> Iterator[bytes]:
        if self._reach.open:
            try:
                found = self._http.fetch(url)
            except FleetUnreachable as error:
                self._reach.failed(str(error))
            else:
                self._reach.worked()
                return found
        return self._chunks.fetch(url)
