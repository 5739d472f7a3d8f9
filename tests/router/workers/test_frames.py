"""What control process and workers tell each other, over a pair of real sockets."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from contracts.headers import Terms
from contracts.messages import Status
from router.workers import frames
from router.workers.frames import Alive, Broken, Channel, Down, Promise, Ready, Told, Up, to_control, to_worker
from runtime.links.http.upstream import Request


@pytest.fixture
async def ends() -> tuple[Channel[Down, Up], Channel[Up, Down]]:
    control, worker = socket.socketpair()
    return await to_worker(control), await to_control(worker)


Ends = tuple[Channel[Down, Up], Channel[Up, Down]]


async def test_what_one_says_the_other_hears_in_order(ends: Ends) -> None:
    control, worker = ends
    large = Promise(7, Request("POST", "/v1/predict/digits", {"A": "b"}, b"x" * (4 << 20)), Terms(), "digits", "kiosk")
    for said in (Ready("http://127.0.0.1:1"), large, Alive()):
        worker.send(said)
        assert await control.receive() == said
    told = Told(True, statuses=(Status("edge-fra", 1, "online"),))
    control.send(told)
    assert await worker.receive() == told
    await control.close()
    await worker.close()


async def test_the_end_of_one_is_told_to_the_other(ends: Ends) -> None:
    control, worker = ends
    await control.close()
    with pytest.raises(Broken, match="closed"):
        await worker.receive()
    worker.send(Alive())
    await worker.close()


@pytest.mark.parametrize(
    ("data", "word"), [(struct.pack(">I", 1 << 31), "announced"), (struct.pack(">I", 3) + b"abc", "cannot be read")]
)
async def test_what_is_no_frame_ends_it(data: bytes, word: str) -> None:
    ours, theirs = socket.socketpair()
    control = await to_worker(ours)
    with theirs:
        theirs.sendall(data)
        with pytest.raises(Broken, match=word):
            await control.receive()
    await control.close()


async def test_who_does_not_listen_is_given_up(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_WAITING_BYTES", 1 << 20)
    control, worker = ends
    told = Told(True, statuses=tuple(Status(f"edge-{number}", 1, "online") for number in range(10_000)))
    for _ in range(20):
        control.send(told)
        await asyncio.sleep(0)
    with pytest.raises(Broken):
        await control.receive()
    await control.close()
    await worker.close()
