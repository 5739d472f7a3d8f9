"""Which chunks of a content are at hand: a set of numbers as bits, and the small file that keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from contracts.decoding import UNREADABLE
from contracts.messages import CHUNK_BYTES, chunks_of

BITS_SUFFIX = ".bits"


class _Stored(msgspec.Struct, frozen=True):
    size: int
    chunk_bytes: int
    bits: bytes


class ChunkBits:
    """Of a content of `size` bytes in chunks of `chunk_bytes`, the last one shorter.

    Bit i % 8 of byte i // 8 is chunk i.
    """

    def __init__(self, size: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.size = size
        self.chunk_bytes = chunk_bytes
        self.count = chunks_of(size, chunk_bytes)
        self.held_bytes = 0
        self._bits = bytearray(-(-self.count // 8))

    def __contains__(self, index: int) -> bool:
        return bool(self._bits[index >> 3] >> (index & 7) & 1)

    @property
    def complete(self) -> bool:
        return self.held_bytes == self.size

    def length(self, index: int) -> int:
        """Bytes of chunk `index`; raises IndexError where there is none."""
        if not 0 <= index < self.count:
            raise IndexError(f"chunk {index} of {self.count}")
        return min(self.chunk_bytes, self.size - index * self.chunk_bytes)

    def add(self, index: int) -> None:
        if index not in self:
            self.held_bytes += self.length(index)
            self._bits[index >> 3] |= 1 << (index & 7)

    def missing(self) -> Iterator[int]:
        return (index for index in range(self.count) if index not in self)

    def prefix_bytes(self) -> int:
        """How many bytes are here without a gap, from the first on."""
        return min(self.size, next(self.missing(), self.count) * self.chunk_bytes)

    def within(self, length: int) -> ChunkBits:
        """Those chunks that lie in the first `length` bytes: no file has more than it is long."""
        kept = ChunkBits(self.size, self.chunk_bytes)
        for index in range(self.count):
            if index in self and index * self.chunk_bytes + self.length(index) <= length:
                kept.add(index)
        return kept

    @classmethod
    def of_prefix(cls, length: int, size: int, chunk_bytes: int = CHUNK_BYTES) -> ChunkBits:
        """What the first `length` bytes of a content hold."""
        bits = cls(size, chunk_bytes)
        for index in range(bits.count if length >= size else length // chunk_bytes):
            bits.add(index)
        return bits

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(_Stored(self.size, self.chunk_bytes, bytes(self._bits)))

    @classmethod
    def decode(cls, data: bytes) -> ChunkBits | None:
        """None for what `encode` did not write."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
        except UNREADABLE:
            return None
        if stored.size < 0 or stored.chunk_bytes < 1:
            return None
        if len(stored.bits) != -(-chunks_of(stored.size, stored.chunk_bytes) // 8):
            return None
        bits = cls(stored.size, stored.chunk_bytes)
        for index in range(bits.count):
            if stored.bits[index >> 3] >> (index & 7) & 1:
                bits.add(index)
        return bits

    @classmethod
    def read(cls, path: Path) -> ChunkBits | None:
        """None also where there is no such file."""
        try:
            return cls.decode(path.read_bytes())
        except FileNotFoundError:
            return None
