"""Bodies on disk: what came is what is read, as often as it is read, and a full disk is told."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from runtime.links.http import spool
from runtime.links.http.spool import Spool, Spooling
from tests.runtime.raw_caller import until


async def read(body: Spool) -> bytes:
    return b"".join([piece async for piece in body.pieces()])


class Caller:
    """Whose bytes come. `held` tells when it had to wait."""

    def __init__(self, first: bytes, left: int) -> None:
        self.held: list[bool] = []
        self.failures = 0
        scratch = memoryview(bytearray(64))
        self.spooling = Spooling(first, left, scratch, hold=self.held.append, failed=self._failed)

    def _failed(self) -> None:
        self.failures += 1

    def send(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            room = self.spooling.room()
            count = min(len(room), len(data) - at)
            room[:count] = data[at : at + count]
            room.release()
            self.spooling.fill(count)
            at += count


@given(st.binary(max_size=50), st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8))
def test_what_came_is_read_each_time_however_it_came(first: bytes, parts: list[bytes]) -> None:
    async def story() -> None:
        rest = b"".join(parts)
        caller = Caller(first, len(rest))
        for part in parts:
            caller.send(part)
            await asyncio.sleep(0)
        body = caller.spooling.body
        await asyncio.wait_for(body.stored(), 10)
        assert caller.spooling.left == 0
        assert len(body) == len(first + rest)
        assert [await read(body) for _ in range(2)] == [first + rest] * 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "PIECE_BYTES", 16)
        asyncio.run(story())


async def test_a_caller_that_is_faster_than_the_disk_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PIECE_BYTES", 16)
    caller = Caller(b"", 16 * 100)
    caller.send(b"x" * 16 * spool.MOST_WAITING)
    assert caller.held == [True]
    await until(lambda: not caller.held[-1])
    caller.send(b"y" * 16 * (100 - spool.MOST_WAITING))
    await caller.spooling.body.stored()
    assert caller.held[-1] is False
    assert await read(caller.spooling.body) == b"x" * 16 * spool.MOST_WAITING + b"y" * 16 * (100 - spool.MOST_WAITING)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device on which no byte has room."""

    def opened(**_: Any) -> Any:
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", opened)


@pytest.mark.usefixtures("full_disk")
async def test_a_full_disk_is_told_once_and_the_rest_is_read_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PIECE_BYTES", 16)
    caller = Caller(b"x" * 40, 1000)
    with pytest.raises(FoothillError, match="No space left on device") as told:
        await caller.spooling.body.stored()
    assert (told.value.code, caller.failures) == ("unavailable", 1)
    caller.send(b"y" * 1000)
    assert (caller.spooling.left, caller.failures) == (0, 1)
    with pytest.raises(FoothillError, match="No space left"):
        await Spool(0).append(b"x")


async def test_where_no_file_can_be_made_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    caller = Caller(b"x", 4)
    with pytest.raises(FoothillError, match="Permission denied"):
        await caller.spooling.body.stored()
    with pytest.raises(FoothillError, match="no temporary file"):
        await Spool(0).append(b"x")
