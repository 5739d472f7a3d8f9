"""GeoIP databases of a few networks, written as MaxMind's format has them (version 2.0, records of 32 bits)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

EPOCH_S = 1_700_000_000
LONDON = {"location": {"latitude": 51.5142, "longitude": -0.0931, "accuracy_radius": 20}}
TOKYO = {"location": {"latitude": 35.685, "longitude": 139.7514, "accuracy_radius": 50}}
PARIS_FLAT = {"city": "Paris", "country_code": "FR", "latitude": 48.8534, "longitude": 2.3488}
NETWORK_OF_SOMEBODY = {"autonomous_system_number": 64496, "autonomous_system_organization": "Example"}
BERLIN_BY_PHONE = {
    "location": {"latitude": 52.5196, "longitude": 13.4069, "accuracy_radius": 50},
    "traits": {"connection_type": "Cellular"},
}


def city(records: Mapping[str, object], *, kind: str = "GeoLite2-City", ip_version: int = 6) -> bytes:
    """The file of a database that knows `records` by network."""
    tree = _Tree(32 if ip_version == 4 else 128)
    data = b""
    for network, record in records.items():
        tree.put(network, len(data))
        data += _encoded(record)
    about = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": EPOCH_S,
        "database_type": kind,
        "description": {"en": "made for a test"},
        "ip_version": ip_version,
        "languages": ["en"],
        "node_count": len(tree.nodes),
        "record_size": 32,
    }
    return tree.encoded() + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _encoded(about)


def write(path: Path, content: bytes) -> None:
    """Writes over what is there, as a careless one does."""
    path.write_bytes(content)


def move(path: Path, there: Path) -> None:
    path.rename(there)


def put(path: Path, content: bytes) -> None:
    """Renames it there, as a careful operator does."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.rename(path)


class _Tree:
    """Nodes are [left, right]; a record is a node's number, ~offset of data, or None. Networks must not overlap."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self.nodes: list[list[int | None]] = [[None, None]]

    def put(self, name: str, offset: int) -> None:
        network = ip_network(name)
        length = network.prefixlen + (self._bits - 32 if isinstance(network, IPv4Network) else 0)
        address = int(network.network_address)
        at = 0
        for used in range(1, length):
            side = address >> (self._bits - used) & 1
            below = self.nodes[at][side]
            if below is None:
                below = len(self.nodes)
                self.nodes.append([None, None])
                self.nodes[at][side] = below
            at = below
        self.nodes[at][address >> (self._bits - length) & 1] = ~offset

    def encoded(self) -> bytes:
        return b"".join(struct.pack(">II", *(self._record(record) for record in node)) for node in self.nodes)

    def _record(self, record: int | None) -> int:
        count = len(self.nodes)
        if record is None:
            return count
        return record if record >= 0 else count + 16 + ~record


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return _control(2, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, int):
        return _control(6, 4) + struct.pack(">I", value)
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(_encoded(name) + _encoded(value[name]) for name in value)
    return _control(11, len(value)) + b"".join(_encoded(each) for each in value)


def _control(kind: int, size: int) -> bytes:
    """Kinds above 7 and sizes above 28 take a byte more each."""
    first = size if size < 29 else 29
    extended = bytes([kind - 7]) if kind > 7 else b""
    return bytes([(kind << 5 if kind <= 7 else 0) | first]) + extended + (bytes([size - 29]) if size >= 29 else b"")
