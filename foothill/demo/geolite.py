"""The city database that comes with the `geo` extra: GeoLite2 of 2018, CC BY-SA 4.0, from PyPI's maxminddb-geolite2."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

_PACKAGE = "_maxminddb_geolite2"
_FILE = "GeoLite2-City.mmdb"
Find = Callable[[str], ModuleSpec | None]


class GeoDatabaseError(Exception):
    """No GeoIP database, or none that can be read. The message says what to install."""


def find_database(find: Find = importlib.util.find_spec) -> str:
    """The path of the database, or "" where the extra is not installed: a router then knows nobody's place."""
    found = find(_PACKAGE)
    if found is None or found.origin is None:
        return ""
    path = Path(found.origin).with_name(_FILE)
    return str(path) if path.is_file() else ""


def database_path(find: Find = importlib.util.find_spec) -> Path:
    """The path of the database, for who cannot do without. Raises GeoDatabaseError."""
    path = find_database(find)
    if not path:
        raise GeoDatabaseError("No GeoIP city database is installed. Type: pip install 'foothill[geo]'")
    return Path(path)
