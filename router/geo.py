"""Where an address lies, by a GeoIP City database: a prior for distance, never an authority on residency."""

from __future__ import annotations

import logging
from pathlib import Path

import maxminddb

from contracts.places import Place
from router.client_address import Address
from runtime.links.process.settings import SettingsError

log = logging.getLogger(__name__)


class Geo:
    """Looks addresses up in a database, or knows no place at all without one."""

    def __init__(self, reader: maxminddb.Reader | None) -> None:
        self._reader = reader
        self._sound = True

    @classmethod
    def open(cls, path: str) -> Geo:
        """ "" is no database: the router then ranks by load alone, and says so once.

        Raises SettingsError for a file that is named and cannot be used: to serve without the places that somebody
        configured would show in nothing but worse latencies.
        """
        if not path:
            log.warning("geoip: no geoip_database is set, so clients have no place and leases go by load alone")
            return cls(None)
        try:
            return cls(maxminddb.open_database(Path(path)))
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            raise SettingsError(
                f"geoip_database {path} cannot be used ({error}). Name a City database in MaxMind's format, or leave "
                "geoip_database empty to rank nodes by load alone."
            ) from error

    def place(self, address: Address | None) -> Place | None:
        if self._reader is None or address is None:
            return None
        try:
            return _place(self._reader.get(address))
        except (ValueError, maxminddb.InvalidDatabaseError) as error:
            if self._sound:
                log.warning("geoip: a lookup failed (%s); addresses like it have no place", error)
                self._sound = False
            return None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def _place(record: object) -> Place | None:
    """Reads GeoIP2's City schema (`location.latitude`) and the flat one of other vendors (`latitude`)."""
    if not isinstance(record, dict):
        return None
    location = record.get("location", record)
    if not isinstance(location, dict):
        return None
    latitude, longitude = location.get("latitude"), location.get("longitude")
    if not isinstance(latitude, int | float | str) or not isinstance(longitude, int | float | str):
        return None
    return Place(float(latitude), float(longitude))
