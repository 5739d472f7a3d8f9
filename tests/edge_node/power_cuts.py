"""Power cuts at every call that an updater makes of its disk, and what its next life makes of what is left.

A story is played once on a recording disk. Then, for each call of it, the disk is what a power cut at that moment may
have left, and the real updater starts on it. `python -m tests.edge_node.power_cuts` plays any number of cuts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import FILE, File, decode, digest_of
from edge_node.probation import Rule, WatchedEngine
from edge_node.slots import SlotFile, Slots
from runtime.links.bundles.blob_http import http_ways
from runtime.links.bundles.fetch import Way, Ways, fetch_bundle
from runtime.links.bundles.store import BundleStore, size_of
from runtime.links.chunks.file import ChunkFile, leave_prefix
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel
from tests.edge_node.bundle_factory import contents_of, plain_manifest
from tests.edge_node.power_disk import HOWS, Call, How, Kind, Platter, RecordingDisk, Tree, full_after
from tests.edge_node.workbench import Bench, Broken, Warehouse, desired, until
from tests.runtime.links.fleet_server import FleetServer

P = ParamSpec("P")
T = TypeVar("T")

SYNC_BYTES = 100
CHUNK_BYTES = 32
AT_ONCE = Rule(seconds=0.0, requests=1)
PATIENT = Rule(seconds=60.0, requests=1000)
LATER = 1_000_000
"""A sequence above those of all stories."""


class Scripted:
    """An engine that answers zeros."""

    provider = "scripted"
    concurrent = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"logits": np.zeros((len(next(iter(inputs.values()))), 10), np.float32)}

    def close(self) -> None:
        pass


class Published:
    """Bundles by (model, version) whose contents are no models, and which of them were loaded unverified."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.contents: dict[str, bytes] = {}
        self.unverified: list[str] = []
        self._digests: dict[tuple[str, str], str] = {}

    def digest(self, model: str, version: str) -> str:
        if (model, version) not in self._digests:
            files = {"extra/big.bin": (f"{model} {version} " * 40).encode(), "extra/same.bin": b"the same in all" * 9}
            data = plain_manifest(version=version, model=model, files=files)
            self._digests[model, version] = digest_of(data)
            self.manifests[digest_of(data)] = data
            self.contents |= {digest_of(content): content for content in contents_of(version, files)}
        return self._digests[model, version]

    def manifest(self, model: str, digest: str, candidate: bytes | None) -> bytes:
        return self.manifests[digest]

    def open(self, directory: Path, digest: str) -> LoadedModel:
        """The proof that nothing unverified is loaded: at this moment every byte is what was published."""
        data = self.manifests[digest]
        manifest = decode(data)
        found = {name: (directory / name).read_bytes() for name in (FILE, *manifest.files)}
        wrong = [name for name, file in manifest.files.items() if digest_of(found[name]) != file.sha256]
        if found[FILE] != data or wrong:
            self.unverified.append(f"{digest}: {wrong or FILE}")
        return LoadedModel(directory, digest, manifest, manifest.artifacts[0], Scripted(), "cpu-x86")

    def ways(self) -> _Pieces:
        return _Pieces(self.contents)

    def chunks(self) -> _Chunks:
        return _Chunks(self.contents)


class _Pieces:
    """Contents in a few pieces from memory, each from where the last attempt ended."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents

    async def __aenter__(self) -> Way:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        leave_prefix(store, file)
        partial = store.partial(file.sha256)
        have = min(size_of(partial), file.bytes)
        writing = store.disk.open(partial, at=have)
        try:
            writing.write(self._contents[file.sha256][have:])
        finally:
            writing.close()


class _Chunks(_Pieces):
    """Contents in chunks out of order. A first attempt breaks off in the middle, the next one goes on from its bits."""

    async def bring(self, store: BundleStore, file: File, told: Callable[[int], None]) -> None:
        if file.bytes > SYNC_BYTES and not size_of(store.partial(file.sha256)):
            self._put(store, file, keep=0.5)
        self._put(store, file, keep=1.0)

    def _put(self, store: BundleStore, file: File, keep: float) -> None:
        chunks, content = ChunkFile(store, file, chunk_bytes=CHUNK_BYTES), self._contents[file.sha256]
        try:
            missing = list(chunks.bits.missing())
            random.Random(len(missing)).shuffle(missing)
            for index in missing[: math.ceil(len(missing) * keep)]:
                chunks.put([(index, content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])])
            if chunks.bits.complete:
                chunks.finish()
        finally:
            chunks.close()


class Player:
    """A node's lives in one directory, on one recording disk."""

    def __init__(self, directory: Path, published: Published, ways: Ways, disk: RecordingDisk) -> None:
        self.directory = directory
        self.published = published
        self.disk = disk
        self.history: list[tuple[int, Slots]] = [(0, Slots())]
        self._ways = ways
        self._lives: list[Bench] = []

    @property
    def bench(self) -> Bench:
        return self._lives[-1]

    def begin(self, rule: Rule = AT_ONCE) -> Bench:
        """A new life. It does not serve yet."""
        store = BundleStore(self.directory / "store", reserve_bytes=0, sync_bytes=SYNC_BYTES, disk=self.disk)

        async def fetch(model: str, digest: str, manifest: bytes | None) -> Path:
            return await fetch_bundle(store, self.published, self._ways, model, digest, manifest)

        warehouse = Warehouse(self.directory)
        bench = Bench(
            self.directory,
            warehouse,
            rule=rule,
            store=store,
            fetch=fetch,
            open_bundle=self.published.open,
            disk=self.disk,
        )
        self._lives.append(bench)
        return bench

    async def restart(self, rule: Rule = AT_ONCE) -> None:
        if self._lives:
            await self.bench.updater.end_probations()
            await self.bench.host.close()
        self.begin(rule)
        await self.bench.updater.restore()
        await settled(self.bench)

    async def want(self, sequence: int, **versions: str) -> bool:
        models = {model: self.published.digest(model, version) for model, version in versions.items()}
        return await self.bench.updater.apply(desired(sequence, models), {})

    async def close(self) -> None:
        await self.bench.updater.end_probations()
        await self.bench.host.close()

    def note(self, call: Call, number: int) -> None:
        """Which slots were in force when a call began: they are told from then on."""
        if self._lives and self.bench.slots.state != self.history[-1][1]:
            self.history.append((number, self.bench.slots.state))


async def settled(bench: Bench) -> None:
    """Until no model is on probation: that of a restored one goes on behind."""
    await until(lambda: all(report.phase != "probation" for report in bench.updater.reports.values()))


Step = Callable[[Player], Awaitable[object]]


class Story(NamedTuple):
    """`before` has happened when the power may first fail; `steps` are what it may fail in."""

    before: Sequence[Step]
    steps: Sequence[Step]


def want(sequence: int, **versions: str) -> Step:
    return lambda player: player.want(sequence, **versions)


async def restart(player: Player) -> None:
    await player.restart()


async def stop(player: Player) -> None:
    await player.bench.updater.stop()


async def unload(player: Player) -> None:
    await player.bench.repository.unload("digits")


async def load(player: Player) -> None:
    await player.bench.repository.load("digits")


def _on_probation(player: Player) -> bool:
    report = player.bench.updater.reports.get("digits")
    return report is not None and report.phase == "probation"


def broken_on_probation(sequence: int, **versions: str) -> Step:
    """The engine of the new bundle fails on probation, so that the node goes back by itself."""

    async def play(player: Player) -> None:
        await player.restart(PATIENT)
        work = asyncio.create_task(player.want(sequence, **versions))
        await until(lambda: work.done() or _on_probation(player))
        if not work.done():
            loaded = player.bench.host.get("digits").loaded
            loaded.engine = WatchedEngine(Broken(loaded.engine))
            with contextlib.suppress(FoothillError):
                loaded.run({"image": np.zeros((1, 1, 8, 8), np.float32)})
        await work

    return play


def died_on_probation(sequence: int, **versions: str) -> Step:
    """The process ends with the new bundle on probation, and the next life goes on with it."""

    async def play(player: Player) -> None:
        await player.restart(PATIENT)
        work = asyncio.create_task(player.want(sequence, **versions))
        await until(lambda: _on_probation(player))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await player.restart()

    return play


ONE = (restart, want(1, digits="1"))
TWO = (*ONE, want(2, digits="2"))

STORIES: dict[str, Story] = {
    "first install": Story((), ONE),
    "update": Story(ONE, (want(2, digits="2"),)),
    "two updates in a row": Story(ONE, (want(2, digits="2"), want(3, digits="3"))),
    "back to the previous": Story(TWO, (want(3, digits="1"),)),
    "revert on probation": Story(ONE, (broken_on_probation(2, digits="2"),)),
    "first one fails on probation": Story((restart,), (broken_on_probation(1, digits="1"),)),
    "restart on probation": Story(ONE, (died_on_probation(2, digits="2"),)),
    "several models": Story((restart,), (want(1, digits="1", faces="1"), want(2, digits="2", faces="2"))),
    "a model goes, another comes": Story(ONE, (want(2, faces="1"), want(3, digits="1"))),
    "all go": Story(TWO, (want(3),)),
    "the same again": Story(ONE, (want(2, digits="1"), restart, want(2, digits="1"))),
    "unloaded and loaded": Story(ONE, (unload, restart, want(2, digits="1"), load)),
    "an update of what is unloaded": Story(ONE, (unload, want(2, digits="2"))),
    "a revert to what is unloaded": Story(ONE, (unload, broken_on_probation(2, digits="2"), load)),
    "stop and start": Story(TWO, (stop, restart, want(3, digits="3"))),
}


IN_CHUNKS = ("first install", "update", "several models")
"""Stories whose fetches are cut once more, with chunks."""


class Recording(NamedTuple):
    """`first`: the first call in which the power may fail. `history`: slots in force from a call on."""

    calls: list[Call]
    first: int
    history: list[tuple[int, Slots]]


async def record(story: Story, directory: Path, published: Published, ways: Ways | None = None) -> Recording:
    """Plays a story to its end."""
    player: Player
    disk = RecordingDisk(directory, lambda call, number: player.note(call, number))
    ways = ways or published.ways
    player = Player(directory, published, ways, disk)
    for step in story.before:
        await step(player)
    first = len(disk.calls)
    for step in story.steps:
        await step(player)
    await player.close()
    player.note(Call("close", "."), len(disk.calls))
    return Recording(disk.calls, first, player.history)


class Cut(NamedTuple):
    """The power fails before call `number`; `how` much of what was not synced survives."""

    number: int
    how: How
    seed: int


def allowed(recording: Recording, number: int) -> list[Slots]:
    """The slots in force before the call, and those that were next: one of them must be on the disk."""
    past = [slots for begun, slots in recording.history if begun <= number]
    coming = [slots for begun, slots in recording.history if begun > number]
    return [past[-1], *coming[:1]]


def cuts_of(recording: Recording, count: int, rng: random.Random) -> Iterator[Cut]:
    """`count` cuts, every call in turn."""
    numbers = range(recording.first, len(recording.calls) + 1)
    start = rng.randrange(len(numbers))
    for index in range(count):
        turn, place = divmod(start + index, len(numbers))
        yield Cut(numbers[place], HOWS[turn % len(HOWS)], rng.getrandbits(32))


class Wrong(Exception):  # noqa: N818 - it names what was found
    """A state that must not be."""


class Cuts:
    """Cuts of one recording. `deaf` are calls that the disk forgets, to see that it would be found out."""

    def __init__(
        self, name: str, recording: Recording, published: Published, directory: Path, deaf: Collection[Kind] = ()
    ) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self.lives = 0
        self.wrong: list[str] = []
        self._name = name
        self._recording = recording
        self._published = published
        self._directory = directory
        self._deaf = deaf

    async def play(self, cuts: Sequence[Cut], again: float = 0.0) -> None:
        """`again`: the share of cuts after which the power fails once more, while the node gets up."""
        platter, played = Platter(self._deaf), 0
        for cut in sorted(cuts):
            for made in self._recording.calls[played : cut.number]:
                platter.play(made)
            played = cut.number
            rng = random.Random(cut.seed)
            tree = platter.after(cut.how, rng)
            await self._judged(cut, tree, allowed(self._recording, cut.number), rng, again)

    async def _judged(self, cut: Cut, tree: Tree, states: Sequence[Slots], rng: random.Random, again: float) -> None:
        """What follows from a disk and the states that are allowed is always the same: it is looked at once."""
        twice = rng.random() < again
        key = (tree.key(), tuple(map(str, states)))
        if key in self.seen and not twice:
            return
        self.seen.add(key)
        try:
            recording = await self._live(tree, states)
            if twice:
                number = rng.randint(0, len(recording.calls))
                platter = tree.platter()
                for call in recording.calls[:number]:
                    platter.play(call)
                await self._live(platter.after(cut.how, rng), allowed(recording, number))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            last = self._recording.calls[cut.number - 1][:3] if cut.number else ()
            self.wrong.append(f"{self._name}, {cut}, after {last}: {type(error).__name__}: {error}")

    async def _live(self, tree: Tree, states: Sequence[Slots]) -> Recording:
        """The next life on what is left, and its calls. Raises Wrong."""
        self.lives += 1
        directory = self._directory / str(self.lives)
        directory.mkdir()
        try:
            tree.write(directory)
            ways = self._published.chunks if self.lives % 2 else self._published.ways
            return await _check_life(directory, self._published, ways, states)
        finally:
            shutil.rmtree(directory)


async def _check_life(directory: Path, published: Published, ways: Ways, states: Sequence[Slots]) -> Recording:
    """Over one way or the other: each must go on from what any has left."""
    player: Player
    disk = RecordingDisk(directory, lambda call, number: player.note(call, number))
    player = Player(directory, published, ways, disk)
    player.history = [(0, SlotFile(directory, disk).state)]
    if player.history[0][1] not in states:
        raise Wrong(f"slots are {player.history[0][1]}, neither {' nor '.join(map(str, states))}")
    await player.restart()
    try:
        _check_serving(player)
        newest = {"digits": "8", "faces": "9"}
        if not await player.want(LATER, **newest):
            raise Wrong(f"the next update waits: {player.bench.updater.reports}")
        _check_updated(player, {model: published.digest(model, version) for model, version in newest.items()})
        player.note(Call("close", "."), len(disk.calls))
    finally:
        await player.close()
    if published.unverified:
        raise Wrong(f"loaded unverified: {published.unverified.pop()}")
    return Recording(disk.calls, 0, player.history)


def _check_serving(player: Player) -> None:
    """What was served, or is named as what to go back to, is whole and serves."""
    for model, slot in player.bench.slots.models.items():
        for digest in {slot.current, slot.previous} - {""}:
            player.bench.store.verify(digest)
        if player.bench.serving(model) != ("" if slot.off else slot.current):
            raise Wrong(f"{model} is served by {player.bench.serving(model) or 'nothing'}, and its slot is {slot}")


def _check_updated(player: Player, digests: Mapping[str, str]) -> None:
    bench = player.bench
    kept = set()
    for model, digest in digests.items():
        if (bench.serving(model), bench.report(model).phase) != (digest, "active"):
            raise Wrong(f"the next update of {model} ends with {bench.report(model)}")
        kept |= bench.slots.get(model).digests()
    if set(bench.store.digests()) != kept:
        raise Wrong(f"{len(bench.store.digests())} bundles are stored, not {len(kept)}")
    for digest in kept:
        bench.store.verify(digest)
    contents = {file.sha256 for digest in kept for file in bench.store.manifest(digest).files.values()}
    store = player.directory / "store"
    left = [str(path) for name in ("partial", "building") for path in (store / name).iterdir()]
    left += [blob.name for blob in (store / "blobs/sha256").iterdir() if f"sha256:{blob.name}" not in contents]
    if left:
        raise Wrong(f"garbage is left: {left}")


async def fill_up(name: str, story: Story, published: Published, directory: Path, number: int) -> int:
    """The disk is full from call `number` of the story on. The node serves on, and goes on when there is room again.

    Returns how many calls the story had come to make. Raises Wrong.
    """
    player: Player
    full = [False]
    refuse = full_after(0)

    def fails(call: Call, now: int) -> None:
        if full[0] and now >= first + number:
            refuse(call, now)

    disk = RecordingDisk(directory, fails)
    player = Player(directory, published, published.ways, disk)
    for step in story.before:
        await step(player)
    first, full[0] = len(disk.calls), True
    served = {model: player.bench.serving(model) for model in player.bench.host.models}
    for step in story.steps:
        await step(player)
    made = len(disk.calls) - first
    for model in served:
        if model in player.bench.slots.models and not player.bench.serving(model):
            raise Wrong(f"{name}, full after {number}: {model} is not served any more")
    await player.restart()
    _check_serving(player)
    full[0] = False
    try:
        await player.restart()
        newest = {"digits": "8", "faces": "9"}
        if not await player.want(LATER, **newest):
            raise Wrong(f"{name}, full after {number}: the next update waits: {player.bench.updater.reports}")
        _check_updated(player, {model: published.digest(model, version) for model, version in newest.items()})
    finally:
        await player.close()
    return made


class Campaign(NamedTuple):
    """What so many cuts have shown."""

    cuts: int
    lives: int
    states: int
    calls: int
    wrong: list[str]


class Inline(ThreadPoolExecutor):
    """Runs what is meant for a thread at once: one life after another needs no threads, and switching costs."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is handed on
            future.set_exception(error)
        return future


async def campaign(
    directory: Path, count: int, seed: int, *, names: Sequence[str] = tuple(STORIES), again: float = 0.1
) -> Campaign:
    """`count` cuts over the calls of all named stories, each story as often as it has calls."""
    asyncio.get_running_loop().set_default_executor(Inline(1))
    published, rng = Published(), random.Random(seed)
    recordings = {name: await record_over_http(name, published, directory) for name in names}
    for name in set(IN_CHUNKS) & set(names):
        recordings[f"{name}, in chunks"] = await record_in_chunks(name, published, directory)
    calls = {name: len(recording.calls) - recording.first + 1 for name, recording in recordings.items()}
    shares = {name: max(1, count * number // sum(calls.values())) for name, number in calls.items()}
    shares[names[0]] += count - sum(shares.values())
    total: Counter[str] = Counter()
    wrong: list[str] = []
    for name, recording in recordings.items():
        cuts = Cuts(name, recording, published, directory)
        await cuts.play(list(cuts_of(recording, shares[name], rng)), again)
        total.update(lives=cuts.lives, states=len(cuts.seen))
        wrong += cuts.wrong
    return Campaign(sum(shares.values()), total["lives"], total["states"], sum(calls.values()), wrong)


async def record_over_http(name: str, published: Published, directory: Path) -> Recording:
    """Over HTTP, with connections that break."""
    room = directory / f"recorded {name}"
    room.mkdir()
    server = FleetServer(room)
    for version in "123":
        for model in ("digits", "faces"):
            published.digest(model, version)
    for digest, content in published.contents.items():
        server.blobs[digest] = content
        if len(content) > SYNC_BYTES:
            server.cut_after[digest].extend([len(content) // 3, len(content) // 3])
    try:
        (room / "node").mkdir()
        ways = http_ways(await server.start(), retry_delays_s=(0.0,))
        return await record(STORIES[name], room / "node", published, ways)
    finally:
        await server.stop()


async def record_in_chunks(name: str, published: Published, directory: Path) -> Recording:
    """Chunks as they come over MQTT: out of order, broken off, gone on with."""
    room = directory / f"recorded {name} in chunks"
    room.mkdir()
    return await record(STORIES[name], room, published, published.chunks)


def main() -> None:
    """Plays cuts and prints what they have shown, as JSON; fails when one went wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cuts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", type=float, default=0.1, help="share of cuts with a second one in the next life")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    fast = Path("/dev/shm")
    started_s, cpu_s = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None, prefix="power-cuts-") as directory:
        found = asyncio.run(campaign(Path(directory), arguments.cuts, arguments.seed, again=arguments.again))
    figures = {
        "seed": arguments.seed,
        **found._asdict(),
        "wrong": len(found.wrong),
        "wall_s": round(time.monotonic() - started_s, 1),
        "cpu_s": round(time.process_time() - cpu_s, 1),
    }
    print(json.dumps(figures))
    for each in found.wrong[:20]:
        print(each)
    raise SystemExit(bool(found.wrong))


if __name__ == "__main__":
    main()
