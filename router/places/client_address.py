"""Whose request it is: the address of the caller, as far as trusted proxies vouch for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from runtime.links.process.settings import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
MAX_HOPS = 32

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ELEMENT = re.compile(rf'(?:[^",]|{_QUOTED.pattern})+')
_PAIR = re.compile(rf'(?:[^";]|{_QUOTED.pattern})+')


def parse_networks(names: Sequence[str]) -> tuple[Network, ...]:
    """CIDR blocks, or single addresses. Raises SettingsError."""
    try:
        return tuple(ip_network(name, strict=False) for name in names)
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}. Write networks such as 10.0.0.0/8 or 192.0.2.7.") from error


def client_address(
    peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network], forwarded: Sequence[str] = ()
) -> Address | None:
    """Walks from the connection's peer through what proxies forwarded, right to left, as long as who speaks is trusted.

    `forwarded_for` are the lines of `X-Forwarded-For` in order, `forwarded` those of `Forwarded` (RFC 7239). A proxy
    writes one of them and passes on what a caller wrote into the other: where both are there they must lead to the
    same address, or the peer's counts. Returns the first address that is no trusted proxy's; where the chain ends or
    breaks before that, the last one that was vouched for. None when the peer has no address.
    """
    address = parse_address(peer)
    told = [part for line in forwarded_for for part in line.split(",")]
    told_too = [part for line in forwarded for part in _speakers(line)]
    if not told or not told_too:
        return _walk(address, told or told_too, trusted)
    found = _walk(address, told, trusted)
    return found if found == _walk(address, told_too, trusted) else address


def _walk(address: Address | None, told: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    for part in reversed(told[-MAX_HOPS:]):
        if address is None or not any(address in network for network in trusted):
            return address
        before = parse_address(part)
        if before is None:
            return address
        address = before
    return address


def _speakers(line: str) -> list[str]:
    """Whom each element of a `Forwarded` line was forwarded for; "" for one that does not say.

    A line with an open quote says nothing: what a caller opens could swallow what proxies wrote behind it.
    """
    if '"' in _QUOTED.sub("", line):
        return [""]
    return [_speaker(element) for element in _ELEMENT.findall(line)]


def _speaker(element: str) -> str:
    pairs = [pair.partition("=") for pair in _PAIR.findall(element)]
    told = [value for name, _, value in pairs if name.strip().lower() == "for"]
    return told[0].strip().strip('"') if len(told) == 1 else ""


def parse_address(text: str) -> Address | None:
    """An address as proxies write it: bare, with a port, in brackets, or IPv4 mapped into IPv6."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
