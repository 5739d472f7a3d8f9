"""The MaxMind DB format: a tree of the bits of addresses, whose leaves point to records.

The package's reader in C only reads files that it maps, which ends the process (SIGBUS) when somebody cuts such a file
short, and a damaged one can end it too; its reader in Python decodes a record anew for each look-up, for 100 µs. So
the tree is walked here, and records are decoded by the package.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from maxminddb import InvalidDatabaseError
from maxminddb.decoder import Decoder

from router.places.client_address import Address

_MARKER = b"\xab\xcd\xefMaxMind.com"
_MARKED_BYTES = 128 * 1024
_SEPARATOR_BYTES = 16
UNREADABLE = (InvalidDatabaseError, ValueError, TypeError, IndexError, RecursionError)
"""What decoding damaged bytes may raise; msgspec's errors are ValueErrors."""


class About(msgspec.Struct, frozen=True):
    """What a file says of itself; `build_epoch` is unix time, `record_size` in bits."""

    database_type: str
    build_epoch: Annotated[int, msgspec.Meta(ge=0, le=1 << 35)]
    ip_version: Literal[4, 6]
    node_count: Annotated[int, msgspec.Meta(gt=0)]
    record_size: Literal[24, 28, 32]


class Mmdb:
    """One database, held in memory. Raises one of UNREADABLE for bytes that are none, or not all of one."""

    def __init__(self, data: bytes) -> None:
        self.about = _about(data)
        self.bits = 32 if self.about.ip_version == 4 else 128
        self._data = data
        self._node_bytes = self.about.record_size // 4
        tree_bytes = self.about.node_count * self._node_bytes
        if tree_bytes + _SEPARATOR_BYTES > len(data):
            raise ValueError("its tree is longer than the file")
        self._decoder = Decoder(data, tree_bytes + _SEPARATOR_BYTES)
        self._records_at = tree_bytes - self.about.node_count
        self._root_v4 = self._walk(0, 0, 96)[0] if self.bits == 128 else 0

    def find(self, address: Address) -> int | None:
        """The pointer to the record of an address, None for one without a record."""
        if address.version == 4:
            pointer, _ = self._walk(self._root_v4, int(address), 32)
        elif self.bits == 128:
            pointer, _ = self._walk(0, int(address), 128)
        else:
            return None
        return pointer if pointer > self.about.node_count else None

    def network(self, address: int) -> tuple[int | None, int]:
        """The pointer of the network around an address of `bits` bits, and how many of these the network fixes."""
        pointer, length = self._walk(0, address, self.bits)
        return (pointer if pointer > self.about.node_count else None), length

    def record(self, pointer: int) -> object:
        return self._decoder.decode(pointer + self._records_at)[0]

    def _walk(self, node: int, address: int, bits: int) -> tuple[int, int]:
        """From `node` down along an address until the tree ends: a record of the tree, and the bits that were used."""
        data, width, size, count = self._data, self._node_bytes, self.about.record_size, self.about.node_count
        right, left_low = (1 << size) - 1, (1 << 24) - 1
        used = 0
        while node < count and used < bits:
            both = int.from_bytes(data[node * width : (node + 1) * width], "big")
            used += 1
            if address >> (bits - used) & 1:
                node = both & right
            elif size == 28:
                # The middle byte holds the highest four bits of both records, those of the left one first.
                node = both >> 32 & left_low | (both >> 28 & 0xF) << 24
            else:
                node = both >> size
        return node, used


def _about(data: bytes) -> About:
    at = data.rfind(_MARKER, max(0, len(data) - _MARKED_BYTES))
    if at < 0:
        raise ValueError("its end is not that of a database")
    told, _ = Decoder(data, at + len(_MARKER)).decode(at + len(_MARKER))
    return msgspec.convert(told, About)
