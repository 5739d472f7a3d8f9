"""Planning distances."""

from __future__ import annotations

import pytest

from foothill.simulators.links import LinkCount, LinkCounts, Ready, Site, bytes_to, connect_to, plan, through
from runtime.regions import load

TABLE = load()
SITES = [
    Site("router", "http://127.0.0.1:8080", "northeurope"),
    Site("tokyo", "http://127.0.0.1:8100", "japaneast"),
    Site("broker", "mqtt://127.0.0.1:1883", "northeurope"),
]
READY = Ready("http://127.0.0.1:1", "127.0.0.1", {"eastus>router": 1001, "eastus>tokyo": 1002, "eastus>broker": 1003})


def test_every_region_reaches_every_site_at_its_distance() -> None:
    links = plan(SITES, ["eastus", "japaneast"], TABLE)
    assert [(link.name, link.target, link.rtt_ms) for link in links] == [
        ("eastus>router", "127.0.0.1:8080", 72.0),
        ("eastus>tokyo", "127.0.0.1:8100", 163.5),
        ("eastus>broker", "127.0.0.1:1883", 72.0),
        ("japaneast>router", "127.0.0.1:8080", 232.5),
        ("japaneast>tokyo", "127.0.0.1:8100", 2.0),
        ("japaneast>broker", "127.0.0.1:1883", 232.5),
    ]


def test_a_party_connects_to_the_relay_of_its_region() -> None:
    assert connect_to("eastus", SITES, READY) == {
        "http://127.0.0.1:8080": "http://127.0.0.1:1001",
        "http://127.0.0.1:8100": "http://127.0.0.1:1002",
    }
    assert through("eastus", SITES[2], READY) == "mqtt://127.0.0.1:1003"


def test_bytes_are_summed_over_the_regions_asked_for() -> None:
    counts = LinkCounts(
        tuple(
            LinkCount(name, "h:1", 1, 1.0, 1, 0, 0, 10, 5) for name in ("eastus>cloud", "japaneast>cloud", "eastus>x")
        )
    )
    assert bytes_to("cloud", counts, ["eastus", "japaneast"]) == 30
    assert bytes_to("cloud", counts, ["eastus"]) == 15


def test_a_site_without_a_port_is_refused() -> None:
    with pytest.raises(ValueError, match="host and a port"):
        plan([Site("router", "http://router", "northeurope")], ["eastus"], TABLE)
