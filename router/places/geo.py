"""Where an address lies, by a GeoIP City database that may be replaced at any time.

It is a prior for distance, never an authority on residency.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from router.places.client_address import Address
from router.places.database import Database, DatabaseError, Stamp, open_database, stamp_of
from router.places.located import Located
from runtime.links.process.settings import SettingsError

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 2.0


class Geo:
    """Looks addresses up in the newest sound database, or knows no place at all without one."""

    def __init__(self, path: Path | None, database: Database | None) -> None:
        self._path = path
        self._database = database
        self._judged: Stamp | None = database.stamp if database is not None else None
        self._last = self._judged
        self._sound = True

    @classmethod
    def open(cls, path: str) -> Geo:
        """ "" is no database: the router then ranks by load alone, and says so once.

        Raises SettingsError for a file that is named and cannot be used: to serve without the places that somebody
        configured would show in nothing but worse latencies.
        """
        if not path:
            log.warning("geoip: no geoip_database is set, so clients have no place and leases go by load alone")
            return cls(None, None)
        try:
            database = open_database(Path(path))
        except DatabaseError as error:
            raise SettingsError(
                f"geoip_database {path} cannot be used: it {error}. Name a City database in MaxMind's format, or leave "
                "geoip_database empty to rank nodes by load alone."
            ) from error
        log.info("geoip: %s, %d bytes", database.title, database.stamp[2])
        return cls(Path(path), database)

    def locate(self, address: Address | None) -> Located | None:
        if self._database is None or address is None:
            return None
        try:
            return self._database.locate(address)
        except DatabaseError as error:
            if self._sound:
                log.warning("geoip: a lookup failed: %s %s. Addresses like it have no place", self._path, error)
                self._sound = False
            return None

    async def follow(self, every_s: float = LOOK_AGAIN_S) -> None:
        """Looks at the file until it is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Takes up a file that is another one than before, and was so at the last look: one that is just being written
        is left to its writer. What cannot be used is told once, and tried again when it changes again."""
        if self._path is None:
            return
        stamp = await asyncio.to_thread(stamp_of, self._path)
        settled, self._last = stamp == self._last, stamp
        if stamp == self._judged or not settled:
            return
        self._judged = stamp
        try:
            database = await asyncio.to_thread(open_database, self._path)
        except DatabaseError as error:
            log.error(
                "geoip: geoip_database %s %s. The one in use, %s, stays. Write a City database beside it and rename "
                "it to that name.",
                self._path,
                error,
                self._database.title if self._database is not None else "none",
            )
            return
        self._database, self._sound = database, True
        log.info("geoip: %s took over, %d bytes", database.title, database.stamp[2])
