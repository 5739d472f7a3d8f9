"""What a service manager hears, on a real socket like its own: ready, alive as long as the loop is, stopping."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.links.process.notify import Notifier
from tests.runtime.links.http.test_serve import PROGRAM

NOBODY: dict[str, str] = {}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        yield listening


def named(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def heard(manager: socket.socket) -> list[str]:
    """All that has arrived until now."""
    words = []
    manager.setblocking(False)
    try:
        while True:
            words.append(manager.recv(4096).decode())
    except BlockingIOError:
        return words
    finally:
        manager.settimeout(20)


def flood(sender: socket.socket, manager: socket.socket) -> None:
    while True:
        sender.sendto(b"x", manager.getsockname())


async def test_it_hears_ready_then_signs_of_life_and_at_last_stopping(manager: socket.socket) -> None:
    notifier = Notifier.from_environment(named(manager, WATCHDOG_USEC="30000"))
    async with notifier.life("node listening on http://127.0.0.1:1"):
        assert await asyncio.to_thread(manager.recv, 4096) == b"READY=1\nSTATUS=node listening on http://127.0.0.1:1"
        assert {await asyncio.to_thread(manager.recv, 4096) for _ in range(3)} == {b"WATCHDOG=1"}
        notifier.stopping()
    assert "STOPPING=1\nSTATUS=draining" in heard(manager)
    await asyncio.sleep(0.05)
    assert heard(manager) == []


async def test_a_loop_that_hangs_gives_no_sign_of_life(manager: socket.socket) -> None:
    async with Notifier.from_environment(named(manager, WATCHDOG_USEC="30000")).life("x"):
        await asyncio.sleep(0.02)
        assert "WATCHDOG=1" in heard(manager)
        time.sleep(0.1)  # noqa: ASYNC251 - hanging is what is tested
        assert heard(manager) == []


@pytest.mark.parametrize(
    "more",
    [NOBODY, {"WATCHDOG_USEC": "many"}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid() + 1)}],
    ids=["none asked for", "no number", "another process's"],
)
async def test_without_a_watchdog_of_ours_only_ready_is_told(manager: socket.socket, more: dict[str, str]) -> None:
    async with Notifier.from_environment(named(manager, **more)).life("x"):
        await asyncio.sleep(0.05)
        assert heard(manager) == ["READY=1\nSTATUS=x"]


async def test_an_address_without_a_file_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses one in the abstract namespace
        address = manager.getsockname().decode().replace("\0", "@")
        async with Notifier.from_environment({"NOTIFY_SOCKET": address}).life("x"):
            assert heard(manager) == ["READY=1\nSTATUS=x"]


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1234", "@" + "x" * 200])
async def test_a_manager_that_does_not_listen_keeps_nobody_from_serving(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with Notifier.from_environment({"NOTIFY_SOCKET": address}).life("x"):
        pass
    assert "the service manager" in caplog.text


async def test_where_nobody_asks_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with Notifier.from_environment(NOBODY).life("x") as nothing:
        assert nothing is None
    assert caplog.text == ""


async def test_a_manager_whose_queue_is_full_holds_up_no_sign_of_life(manager: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flooding:
        flooding.setblocking(False)
        notifier = Notifier.from_environment(named(manager, WATCHDOG_USEC="3000"))
        async with notifier.life("x"):
            with pytest.raises(BlockingIOError):
                flood(flooding, manager)
            await asyncio.sleep(0.02)
            heard(manager)
            assert await asyncio.to_thread(manager.recv, 4096) == b"WATCHDOG=1"


def test_a_process_tells_its_whole_life(manager: socket.socket) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "0"],
        env={**os.environ, **named(manager, WATCHDOG_USEC="200000")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert manager.recv(4096).startswith(b"READY=1\nSTATUS=tester listening on http://127.0.0.1:")
    assert manager.recv(4096) == b"WATCHDOG=1"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 0, told
    assert "STOPPING=1\nSTATUS=draining" in heard(manager)


def test_a_watchdog_that_ends_a_process_is_answered_with_every_stack(manager: socket.socket) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "0"],
        env={**os.environ, **named(manager)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert manager.recv(4096).startswith(b"READY=1")
    process.send_signal(signal.SIGABRT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in told
