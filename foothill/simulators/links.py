"""Links: which distances to emulate between sites, and how a party at a region reaches them through the relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import msgspec

from runtime.regions import RegionTable


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One emulated distance: who connects to `port` (0: chosen at start) reaches `target` (host:port) `rtt_ms` away."""

    name: str
    target: str
    rtt_ms: float
    port: int = 0


class Links(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file the relay reads. `control_port` serves `GET /links`."""

    links: tuple[Link, ...]
    host: str = "127.0.0.1"
    control_port: int = 0


class Ready(msgspec.Struct, frozen=True):
    """The file the relay writes once it listens: the base URL of its counters, and the port of every link."""

    control: str
    host: str
    ports: dict[str, int]


class LinkCount(msgspec.Struct, frozen=True):
    """What crossed one link. Bytes are those handed over, `up` from the connecting side to the target.

    `refused` counts connections that the target did not take.
    """

    name: str
    target: str
    port: int
    rtt_ms: float
    connections: int
    open: int
    refused: int
    up_bytes: int
    down_bytes: int


class LinkCounts(msgspec.Struct, frozen=True):
    """The answer of `GET /links`."""

    links: tuple[LinkCount, ...]


class Site(msgspec.Struct, frozen=True):
    """A service with a place: `url` (any scheme, with host and port) is where it really listens."""

    name: str
    url: str
    region: str


def link_name(region: str, site: str) -> str:
    return f"{region}>{site}"


def plan(sites: Sequence[Site], regions: Iterable[str], table: RegionTable) -> tuple[Link, ...]:
    """One link from every region to every site."""
    return tuple(
        Link(link_name(region, site.name), _address(site.url), table.rtt_ms(region, site.region))
        for region in regions
        for site in sites
    )


def connect_to(region: str, sites: Sequence[Site], ready: Ready) -> dict[str, str]:
    """For a party at `region`: the origin of each http(s) site to the origin that leads there over the distance."""
    return {
        _origin(site.url): _origin(through(region, site, ready))
        for site in sites
        if urlsplit(site.url).scheme in ("http", "https")
    }


def through(region: str, site: Site, ready: Ready) -> str:
    """The site's URL for a party at `region` that takes no `connect_to` (an MQTT client): the relay's own address."""
    parts = urlsplit(site.url)
    port = ready.ports[link_name(region, site.name)]
    return parts._replace(netloc=f"{ready.host}:{port}").geturl()


def bytes_to(site: str, counts: LinkCounts, regions: Mapping[str, object] | Iterable[str]) -> int:
    """Bytes both ways between `site` and parties at `regions`."""
    names = {link_name(region, site) for region in regions}
    return sum(link.up_bytes + link.down_bytes for link in counts.links if link.name in names)


def _address(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or parts.port is None:
        raise ValueError(f"{url!r} needs a host and a port to be put at a distance.")
    return f"{parts.hostname}:{parts.port}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
