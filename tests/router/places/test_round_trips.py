"""Measured round trips: kept by network and node, shrunk to what the distance says, and bounded."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.places import Place, prior_rtt_ms
from router.places.client_address import Address
from router.places.round_trips import RoundTrip, RoundTrips, prefix_of

ADDRESS = IPv4Address("203.0.113.9")
FRANKFURT, DUBLIN = Place(50.11, 8.68), Place(53.35, -6.26)
samples = st.lists(st.floats(0, 10_000), min_size=1, max_size=50)


def noted(address: Address | None, *rtts_ms: float) -> RoundTrips:
    made = RoundTrips()
    for rtt_ms in rtts_ms:
        made.note(address, {"edge-fra": rtt_ms}, ["edge-fra", "edge-iad"])
    return made


def expected_ms(round_trips: RoundTrips, address: Address | None, prior_ms: float = 20.0) -> float:
    return round_trips.expected_ms(prefix_of(address) if address is not None else None, "edge-fra", prior_ms)


@given(samples, st.floats(1, 400))
def test_the_estimate_lies_between_the_distance_and_the_mean_and_five_samples_weigh_as_much_as_it(
    drawn: list[float], prior_ms: float
) -> None:
    found = expected_ms(noted(ADDRESS, *drawn), ADDRESS, prior_ms)
    mean, count = sum(drawn) / len(drawn), len(drawn)
    assert found == pytest.approx((5 * prior_ms + count * mean) / (5 + count), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        ("203.0.113.255", True),
        ("203.0.112.9", False),
        ("2001:db8:1:ffff::1", False),
        ("::cb00:7109", False),
    ],
)
def test_a_network_of_ipv4_is_a_24(other: str, shares: bool) -> None:
    assert (expected_ms(noted(ADDRESS, 80.0), ip_address(other)) != 20.0) is shares


@pytest.mark.parametrize(("other", "shares"), [("2001:db8:1:ffff::1", True), ("2001:db8:2::1", False)])
def test_a_network_of_ipv6_is_a_48(other: str, shares: bool) -> None:
    assert (expected_ms(noted(IPv6Address("2001:db8:1::1"), 80.0), ip_address(other)) != 20.0) is shares


def test_of_nobody_and_of_unknown_nodes_nothing_is_kept() -> None:
    assert len(noted(None, 80.0)) == 0
    round_trips = RoundTrips()
    round_trips.note(ADDRESS, {"edge-x": 1.0}, ["edge-fra"])
    assert len(round_trips) == 0
    assert expected_ms(noted(ADDRESS, 80.0), None) == 20.0


def test_the_pair_that_was_not_measured_for_longest_gives_way() -> None:
    round_trips = RoundTrips(max_pairs=2)
    for at in (1, 2, 1, 3):
        round_trips.note(IPv4Address(at << 8), {"edge-fra": 80.0}, ["edge-fra"])
    kept = [at for at in (1, 2, 3) if expected_ms(round_trips, IPv4Address(at << 8)) != 20.0]
    assert (kept, len(round_trips)) == ([1, 3], 2)


def test_what_is_known_of_a_way_is_told() -> None:
    round_trips = noted(ADDRESS, 30.0, 50.0)
    prior_ms = prior_rtt_ms(DUBLIN, FRANKFURT)
    assert round_trips.told(ADDRESS, DUBLIN, "edge-fra", FRANKFURT) == RoundTrip(prior_ms, 40.0, 2)
    assert round_trips.told(ADDRESS, None, "edge-fra", FRANKFURT) == RoundTrip(None, 40.0, 2)
    assert round_trips.told(None, DUBLIN, "edge-fra", FRANKFURT) == RoundTrip(prior_ms, None, 0)
