"""X-Forwarded-For, walked from the right, believed only as far as trusted proxies wrote it."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.client_address import client_address, parse_address, parse_networks
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


def test_a_peer_without_an_address_is_nobody() -> None:
    assert client_address("", ["1.2.3.4"], TRUSTED) is None


@given(peer=outsiders, told=st.lists(st.text(max_size=60), max_size=5))
def test_nothing_an_outsider_says_changes_who_it_is(peer: IPv4Address, told: list[str]) -> None:
    assert client_address(str(peer), told, TRUSTED) == peer


@given(
    client=outsiders,
    lies=st.lists(st.one_of(st.text(alphabet="0123456789.,: x", max_size=40), insiders), max_size=5),
    hops=st.lists(insiders, max_size=6),
)
def test_what_a_client_writes_to_its_left_is_never_believed(
    client: IPv4Address, lies: list[str], hops: list[str]
) -> None:
    assert client_address("127.0.0.1", [",".join([*lies, str(client), *hops])], TRUSTED) == client


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = parse_address(text)
    assert found is None or ip_address(str(found)) == found


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(SettingsError, match=r"trusted_proxies: .*10\.0\.0\.0/99"):
        parse_networks(["10.0.0.0/99"])
