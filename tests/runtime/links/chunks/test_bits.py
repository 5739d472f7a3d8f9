"""Which chunks are here, as bits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.links.chunks.bits import ChunkBits

sizes = st.integers(0, 2000)
chunk_sizes = st.integers(1, 100)


@given(size=sizes, chunk_bytes=chunk_sizes, data=st.data())
def test_bits_are_a_set_that_counts_its_bytes_and_survives_the_disk(
    size: int, chunk_bytes: int, data: st.DataObject
) -> None:
    bits = ChunkBits(size, chunk_bytes)
    some = data.draw(st.sets(st.integers(0, bits.count - 1)) if bits.count else st.just(set()))
    for index in some:
        bits.add(index)
        bits.add(index)
    again = ChunkBits.decode(bits.encode())
    assert again is not None
    for each in (bits, again):
        assert {index for index in range(each.count) if index in each} == some
        assert set(each.missing()) == set(range(each.count)) - some
        assert each.held_bytes == sum(min(chunk_bytes, size - index * chunk_bytes) for index in some)
        assert each.complete == (len(some) == each.count)


@given(size=sizes, chunk_bytes=chunk_sizes, length=sizes)
def test_a_prefix_holds_its_whole_chunks_and_is_found_again(size: int, chunk_bytes: int, length: int) -> None:
    bits = ChunkBits.of_prefix(length, size, chunk_bytes)
    assert bits.prefix_bytes() == bits.held_bytes <= min(length, size)
    assert min(length, size) - bits.held_bytes < chunk_bytes
    assert bits.complete == (length >= size or bits.count == 0)


@given(size=sizes, chunk_bytes=chunk_sizes, length=sizes)
def test_no_chunk_lies_beyond_the_file(size: int, chunk_bytes: int, length: int) -> None:
    full = ChunkBits.of_prefix(size, size, chunk_bytes)
    within = full.within(length)
    assert within.held_bytes == ChunkBits.of_prefix(length, size, chunk_bytes).held_bytes


@given(st.binary(max_size=64))
def test_any_bytes_are_bits_or_nothing(data: bytes) -> None:
    bits = ChunkBits.decode(data)
    assert bits is None or bits.held_bytes <= bits.size


def test_missing_files_and_torn_ones_are_no_bits(tmp_path: Path) -> None:
    assert ChunkBits.read(tmp_path / "none") is None
    whole = ChunkBits.of_prefix(640, 640, 64).encode()
    (tmp_path / "torn").write_bytes(whole[:-1])
    assert ChunkBits.read(tmp_path / "torn") is None


def test_there_is_no_chunk_behind_the_last() -> None:
    bits = ChunkBits(130, 64)
    assert [bits.length(index) for index in range(3)] == [64, 64, 2]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            bits.length(index)
