"""The fleet's signed metadata in chunks over MQTT, for the TUF client."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from contracts.errors import FoothillError
from runtime.links.chunks.line import ChunkLine

MAX_METADATA_BYTES = 8 << 20
_LONGEST_S = 180.0
_TUF = "/tuf/"


class ChunkFetcher(FetcherInterface):
    """Make it on the event loop that `line` lives on; it fetches for other threads. Wholes only, in memory.

    Of a URL only what stands behind `fleet_url` and `/tuf/` counts.
    """

    def __init__(self, line: ChunkLine, fleet_url: str) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._base = fleet_url.rstrip("/") + _TUF

    def _fetch(self, url: str) -> Iterator[bytes]:
        if not url.startswith(self._base):
            raise DownloadError(f"{url} is not below {self._base}")
        if threading.get_ident() == self._thread:
            raise DownloadError(f"{url} would wait for itself: it is asked for on the thread of the event loop")
        future = asyncio.run_coroutine_threadsafe(self._whole(url.removeprefix(self._base)), self._loop)
        try:
            return iter([future.result(_LONGEST_S)])
        except FoothillError as error:
            if error.code == "not_found":
                raise DownloadHTTPError(f"{url} over MQTT: {error.message}", 404) from error
            raise DownloadError(f"{url} over MQTT: {error.message}") from error
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError) as error:
            future.cancel()
            raise DownloadError(f"{url} over MQTT took more than {_LONGEST_S:g} s, or this process ends") from error

    async def _whole(self, name: str) -> bytes:
        async with self._line.opened():
            pull = self._line.pull(name, [0], None, lenient=True)
            pieces: dict[int, bytes] = {}
            try:
                while pull.size is None or sum(map(len, pieces.values())) < pull.size:
                    pieces |= dict(await pull.next())
                    if pull.size is not None and pull.size > MAX_METADATA_BYTES:
                        raise FoothillError("upstream_failed", f"{name} has {pull.size} bytes: that is no metadata.")
            finally:
                pull.close()
            return b"".join(pieces[index] for index in sorted(pieces))
