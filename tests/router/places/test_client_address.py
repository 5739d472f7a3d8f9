"""X-Forwarded-For and Forwarded, walked from the right, believed only as far as trusted proxies wrote them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.places.client_address import client_address, parse_address, parse_networks
from runtime.links.process.settings import SettingsError

TRUSTED = parse_networks(["127.0.0.0/8", "10.0.0.0/8", "::1"])
outsiders = st.ip_addresses(v=4).filter(lambda address: not any(address in network for network in TRUSTED))
insiders = st.integers(0, 2**24 - 1).map(lambda number: str(IPv4Address((10 << 24) + number)))


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("127.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("127.0.0.1", ["6.6.6.6, 1.2.3.4, 10.1.1.1"], "1.2.3.4"),
        ("127.0.0.1", ["6.6.6.6", "1.2.3.4", "10.1.1.1"], "1.2.3.4"),
        ("127.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        ("127.0.0.1", ["nonsense, 10.1.1.1"], "10.1.1.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("::ffff:127.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
    ],
)
def test_the_first_address_that_no_trusted_proxy_owns_is_the_clients(peer: str, told: list[str], client: str) -> None:
    assert str(client_address(peer, told, TRUSTED)) == client


@pytest.mark.parametrize(
    ("told", "client"),
    [
        (["for=1.2.3.4"], "1.2.3.4"),
        (["For=1.2.3.4;proto=https;by=10.1.1.1"], "1.2.3.4"),
        (['by="[::1]:80";for="[2001:db8::1]:4711"'], "2001:db8::1"),
        (['for="1.2.3.4:5678" ; proto=http'], "1.2.3.4"),
        (["for=6.6.6.6, for=1.2.3.4, for=10.1.1.1"], "1.2.3.4"),
        (["for=6.6.6.6", "for=1.2.3.4", "for=10.1.1.1"], "1.2.3.4"),
        (["for=6.6.6.6, for=unknown, for=10.1.1.1"], "10.1.1.1"),
        (["for=6.6.6.6, for=_hidden"], "127.0.0.1"),
        (["for=6.6.6.6, proto=https"], "127.0.0.1"),
        (["for=6.6.6.6;for=7.7.7.7"], "127.0.0.1"),
        (['host="a;for=6.6.6.6;b"'], "127.0.0.1"),
        (['for="6.6.6.6, for=1.2.3.4'], "127.0.0.1"),
        (['for=6.6.6.6;x=", for="[2001:db8::1]"'], "127.0.0.1"),
        (["nonsense"], "127.0.0.1"),
        ([""], "127.0.0.1"),
    ],
)
def test_forwarded_is_walked_as_well(told: list[str], client: str) -> None:
    assert str(client_address("127.0.0.1", [], TRUSTED, told)) == client


@pytest.mark.parametrize(
    ("forwarded_for", "forwarded", "client"),
    [
        (["1.2.3.4"], ["for=1.2.3.4"], "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], ["for=1.2.3.4;proto=https"], "1.2.3.4"),
        (["1.2.3.4"], ["for=6.6.6.6"], "127.0.0.1"),
        (["6.6.6.6"], ["for=1.2.3.4"], "127.0.0.1"),
        (["1.2.3.4"], ["nonsense"], "127.0.0.1"),
    ],
)
def test_where_the_two_headers_disagree_neither_is_believed(
    forwarded_for: list[str], forwarded: list[str], client: str
) -> None:
    assert str(client_address("127.0.0.1", forwarded_for, TRUSTED, forwarded)) == client


def test_a_peer_without_an_address_is_nobody() -> None:
    assert client_address("", ["1.2.3.4"], TRUSTED) is None


@given(peer=outsiders, told=st.lists(st.text(max_size=60), max_size=5))
def test_nothing_an_outsider_says_changes_who_it_is(peer: IPv4Address, told: list[str]) -> None:
    assert client_address(str(peer), told, TRUSTED) == peer
    assert client_address(str(peer), [], TRUSTED, told) == peer
    assert client_address(str(peer), told, TRUSTED, told) == peer


@given(
    client=outsiders,
    lies=st.lists(st.one_of(st.text(alphabet="0123456789.,: x", max_size=40), insiders), max_size=5),
    hops=st.lists(insiders, max_size=6),
)
def test_what_a_client_writes_to_its_left_is_never_believed(
    client: IPv4Address, lies: list[str], hops: list[str]
) -> None:
    assert client_address("127.0.0.1", [",".join([*lies, str(client), *hops])], TRUSTED) == client


@given(
    client=st.ip_addresses().filter(lambda address: not any(address in network for network in TRUSTED)),
    lies=st.text(alphabet='for=;,"\\ 0123456789.:[]x', max_size=60),
    hops=st.lists(insiders, max_size=4),
)
def test_what_a_client_writes_into_forwarded_hides_it_at_most(
    client: IPv4Address | IPv6Address, lies: str, hops: list[str]
) -> None:
    """Behind a client's own words a proxy adds; an open quote may spoil the line, and then the proxy is who calls."""
    mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
    written = f'for="[{client}]:4711"' if client.version == 6 else f"for={client}"
    line = ", ".join([lies, written, *(f"for={hop}" for hop in hops)])
    assert client_address("127.0.0.1", [], TRUSTED, [line]) in (mapped or client, IPv4Address("127.0.0.1"))


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = parse_address(text)
    assert found is None or ip_address(str(found)) == found


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(SettingsError, match=r"trusted_proxies: .*10\.0\.0\.0/99"):
        parse_networks(["10.0.0.0/99"])
