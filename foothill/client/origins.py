"""Origins: `scheme://host:port`, and connecting to another one than the URL names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


class Route(NamedTuple):
    """Where to connect (`url`, no trailing slash), and what to say there: the `Host` header and the TLS name."""

    url: str
    host: str
    server_name: str


def origin(url: str) -> str:
    """The origin of a URL with its port written out. Raises ValueError for anything but http and https."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is not a base URL: write http://host:port or https://host:port.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme]}"


def normalise(connect_to: Mapping[str, str]) -> dict[str, str]:
    """The same map with both sides as origins."""
    return {origin(named): origin(target) for named, target in connect_to.items()}


def route(base_url: str, connect_to: Mapping[str, str]) -> Route:
    """Where a request for `base_url` goes, under a normalised map."""
    parts = urlsplit(base_url)
    named = origin(base_url)
    target = connect_to.get(named, named)
    return Route(target + parts.path.rstrip("/"), parts.netloc.rpartition("@")[2], parts.hostname or "")
