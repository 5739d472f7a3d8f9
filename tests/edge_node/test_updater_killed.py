"""SIGKILL at random moments of real updates: afterwards the node has the old state or the new one, nothing else."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_node.slots import SlotFile
from runtime.links.bundles import BundleStore
from tests.edge_node.workbench import Bench, Warehouse, desired

pytestmark = pytest.mark.integration

KILLS = 40
ROOT = Path(__file__).parents[2]

# The parent imports once and forks a node for every line it reads; a fork starts in milliseconds.
NURSERY = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.edge_node.workbench import Bench, Warehouse, desired

async def live(directory):
    warehouse = Warehouse(directory / "warehouse")
    one, two = warehouse.pack("1"), warehouse.pack("2")
    bench = Bench(directory / "node", warehouse)
    await bench.updater.restore()
    print("alive", flush=True)
    while True:
        sequence = bench.slots.sequence + 1
        await bench.updater.apply(desired(sequence, {"digits": (one, two)[sequence % 2]}), {})

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        asyncio.run(live(Path(sys.argv[1])))
    print(pid, flush=True)
"""


class Nursery:
    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )

    def begin(self) -> int:
        """A new life of the node, once it has restored what it has."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        words = {self._word(), self._word()}
        return int((words - {"alive"}).pop())

    def kill(self, pid: int, after_s: float) -> None:
        """Lets it live for `after_s` longer; returns when it is gone."""
        gone = os.pidfd_open(pid)
        try:
            select.select([gone], [], [], after_s)
            os.kill(pid, signal.SIGKILL)
            select.select([gone], [], [], 10)
        finally:
            os.close(gone)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _word(self) -> str:
        assert self._process.stdout is not None
        word = self._process.stdout.readline().strip()
        assert word, "the nursery died"
        return word


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    nursery.close()


async def test_killed_at_any_moment_the_node_is_old_or_new(nursery: Nursery, tmp_path: Path) -> None:
    rng = random.Random(0)
    warehouse = Warehouse(tmp_path / "copies")
    known = {warehouse.pack("1"), warehouse.pack("2")}
    seen: set[str] = set()
    update_s = _time_of_an_update(nursery, tmp_path)
    for kill in range(KILLS):
        nursery.kill(nursery.begin(), rng.uniform(0.0, 3 * update_s))
        slots = SlotFile(tmp_path / "node")
        store = BundleStore(tmp_path / "node" / "store", reserve_bytes=0)
        slot = slots.get("digits")
        for digest in {slot.current, slot.previous} - {""}:
            assert digest in known
            store.verify(digest)
        for digest in store.digests():
            store.verify(digest)
        seen.add(slot.current)
        if kill % 10 == 9:
            await _serves_and_takes_updates(tmp_path, warehouse, known)
    assert known <= seen, "the kills hit both versions"


def _time_of_an_update(nursery: Nursery, directory: Path) -> float:
    """Of a node that is left alone for some updates: kills must hit all of one, on a fast machine and on a slow one."""
    pid, started_s = nursery.begin(), time.monotonic()
    while (updates := SlotFile(directory / "node").sequence) < 6:
        assert time.monotonic() - started_s < 60
        time.sleep(0.01)
    update_s = (time.monotonic() - started_s) / updates
    nursery.kill(pid, 0.0)
    return update_s


async def _serves_and_takes_updates(directory: Path, warehouse: Warehouse, known: set[str]) -> None:
    bench = Bench(directory / "node", warehouse)
    await bench.updater.restore()
    if bench.slots.get("digits").current:
        assert bench.serving() in known
        await bench.ask()
    for digest in sorted(known):
        # A bundle under which the node was killed twice is refused, once: the next document is a new chance.
        for _ in range(2):
            assert await bench.updater.apply(desired(bench.slots.sequence + 1, {"digits": digest}), {})
            if bench.report().phase == "active":
                break
        assert (bench.serving(), bench.report().phase) == (digest, "active")
    await bench.updater.stop()
    await bench.host.close()
