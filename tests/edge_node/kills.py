"""SIGKILL at random moments of real updates, fetched over HTTP from a real fleet manager's signed registry.

`python -m tests.edge_node.kills` kills any number of nodes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from contracts.manifest import digest_of
from edge_node.slots import SlotFile
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import fetch_bundle
from runtime.links.bundles.store import BundleStore
from runtime.links.trust.tuf import TrustedFleet
from runtime.serving.models.golden import open_tested
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.test_node_process import Fleet
from tests.edge_node.workbench import Bench, Warehouse, desired

ROOT = Path(__file__).parents[2]
VERSIONS = "1234"
_SETTLING = 10

# The parent imports once and forks a node for every line it reads; a fork starts in milliseconds.
NURSERY = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.edge_node.kills import live

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        asyncio.run(live(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
    print(pid, flush=True)
"""


def checked(directory: Path, digest: str) -> LoadedModel:
    """As a node opens a bundle, and the proof that every byte of it is the signed one."""
    BundleStore(directory.parents[1], reserve_bytes=0).verify(digest)
    return open_tested(directory, digest, target="cpu-x86", threads=1)


def life(directory: Path, fleet_url: str) -> Bench:
    """One life of the node, with the registry's own signed metadata."""
    node = directory / "node"
    root = (directory / "fleet/tuf/metadata/1.root.json").read_bytes()
    store = BundleStore(node / "store", reserve_bytes=0, sync_bytes=10_000)
    trust = TrustedFleet(node / "trust", fleet_url, root)
    fetch = partial(fetch_bundle, store, trust, http_ways(fleet_url))
    return Bench(node, Warehouse(directory / "none"), store=store, fetch=fetch, open_bundle=checked)


async def live(directory: Path, fleet_url: str, digests: list[str]) -> None:
    """Updates from one version to the next until it is killed. Each is fetched: only two are kept."""
    bench = life(directory, fleet_url)
    await bench.updater.restore()
    print("alive", flush=True)
    while True:
        sequence = bench.slots.begun + 1
        await bench.updater.apply(desired(sequence, {"digits": digests[sequence % len(digests)]}), {})


class Nursery:
    def __init__(self, directory: Path, fleet_url: str, digests: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(directory), fleet_url, *digests],
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


class Killed(NamedTuple):
    """`updates` were begun in all lives together; `seen` versions were current after some kill."""

    kills: int
    updates: int
    seen: int
    wrong: list[str]


async def kill_many(directory: Path, kills: int, seed: int) -> Killed:
    """Kills a node so many times, at any moment of its updates, and looks at what it leaves each time."""
    fleet = Fleet(directory)
    try:
        digests = _published(fleet, directory)
        nursery = Nursery(directory, fleet.url, digests)
        try:
            return await _kill_many(directory, nursery, fleet.url, digests, kills, random.Random(seed))
        finally:
            nursery.close()
    finally:
        fleet.stop()


async def _kill_many(
    directory: Path, nursery: Nursery, fleet_url: str, digests: list[str], kills: int, rng: random.Random
) -> Killed:
    seen: set[str] = set()
    wrong: list[str] = []
    update_s = _time_of_an_update(nursery, directory)
    for kill in range(kills):
        nursery.kill(nursery.begin(), rng.uniform(0.0, 3 * update_s))
        try:
            seen.add(_look(directory, digests))
            if kill % _SETTLING == _SETTLING - 1:
                await _serves_and_takes_updates(directory, fleet_url, digests)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            wrong.append(f"kill {kill}: {type(error).__name__}: {error}")
    return Killed(kills, SlotFile(directory / "node").begun, len(seen - {""}), wrong)


def _published(fleet: Fleet, directory: Path) -> list[str]:
    warehouse = Warehouse(directory / "bundles")
    digests = [warehouse.pack(version) for version in VERSIONS]
    for packed in warehouse.packed.values():
        fleet.publish(packed)
    return digests


def _look(directory: Path, digests: list[str]) -> str:
    """Slots that can be read, and every bundle that they name or that shows in the store whole; what is current."""
    slot = SlotFile(directory / "node").get("digits")
    store = BundleStore(directory / "node" / "store", reserve_bytes=0)
    for digest in {slot.current, slot.previous, *store.digests()} - {""}:
        assert digest in digests, f"{digest} was never published"
        store.verify(digest)
        assert digest_of((store.path(digest) / "manifest.json").read_bytes()) == digest
    return slot.current


def _time_of_an_update(nursery: Nursery, directory: Path) -> float:
    """Of a node that is left alone for some updates: kills must hit all of one, on a fast machine and on a slow one."""
    pid, started_s = nursery.begin(), time.monotonic()
    while (updates := SlotFile(directory / "node").sequence) < 6:
        assert time.monotonic() - started_s < 120
        time.sleep(0.01)
    update_s = (time.monotonic() - started_s) / updates
    nursery.kill(pid, 0.0)
    return update_s


async def _serves_and_takes_updates(directory: Path, fleet_url: str, digests: list[str]) -> None:
    bench = life(directory, fleet_url)
    await bench.updater.restore()
    if bench.slots.get("digits").current:
        assert bench.serving() in digests, "it does not serve"
        await bench.ask()
    for digest in digests[:2]:
        # A bundle under which the node was killed twice is refused, once: the next document is a new chance.
        for _ in range(2):
            assert await bench.updater.apply(desired(bench.slots.begun + 1, {"digits": digest}), {})
            if bench.report().phase == "active":
                break
        assert (bench.serving(), bench.report().phase) == (digest, "active"), bench.report()
    await bench.updater.stop()
    await bench.host.close()


def main() -> None:
    """Kills nodes and prints what they have left, as JSON; fails when one went wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as directory:
        killed = asyncio.run(kill_many(Path(directory), arguments.kills, arguments.seed))
    wall_s = round(time.monotonic() - started_s, 1)
    print(json.dumps({"seed": arguments.seed, **killed._asdict(), "wrong": len(killed.wrong), "wall_s": wall_s}))
    for each in killed.wrong[:20]:
        print(each)
    raise SystemExit(bool(killed.wrong))


if __name__ == "__main__":
    main()
