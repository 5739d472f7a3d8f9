"""A real node under real callers for a long time: does it fail, and does it hold on to anything?

`python -m tests.edge_node.endurance switches` switches its model again and again under load; `… soak` asks it some
millions of questions of every kind. Both watch its memory, files, threads and tasks, and end with a verdict.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp
import uvloop

from hil.growth import Growth, exceeds, growth
from tests.edge_node.bundle_factory import pack
from tests.edge_node.test_node_process import EDGE, Fleet, Process, enrol, node_config
from tests.edge_node.traffic import Kind, Talk, Tally, all_kinds, call, hang_up, hot_kinds

MOST_PERCENT = 2.0
MEMORY_NOISE_BYTES = 1 << 20
"""What an allocator keeps or gives back by chance; of a node of 100 MiB it is less than those two per cent."""
FEW = 3
"""Files, threads and tasks come and go: so many more in the median, and one for each caller, are no leak."""
_SETTLED_WITHIN_S = 60.0
_PER_CONNECTION = (1_000_000, 100)
"""Every other caller keeps its connection for good."""
_METRICS = re.compile(
    r"^(process_resident_memory_bytes|process_open_fds|foothill_threads|foothill_tasks) (\S+)$", re.MULTILINE
)


class Look(NamedTuple):
    """What the node holds at one moment."""

    rss_bytes: float
    files: float
    threads: float
    tasks: float


class Verdict(NamedTuple):
    """`wrong` is empty when the node has passed.

    `growth` are medians of the second and of the last third, `memory` those of the second and of the last tenth.
    """

    wrong: list[str]
    requests: int
    answered: dict[str, int]
    hung_up: int
    switches: int
    growth: dict[str, tuple[float, float, float]]
    memory: tuple[float, float, float]
    wall_s: float


class Site:
    """A fleet manager with two bundles of one model, and a node that serves the first. Blocks while it is made."""

    def __init__(self, directory: Path) -> None:
        self.fleet = Fleet(directory)
        joined = enrol(self.fleet, directory)
        assert joined.returncode == 0, joined.stderr
        self._versions: list[str] = []
        for version in ("1", "2"):
            pack(directory / f"bundle-{version}", version=version, seed=int(version))
            self.fleet.publish(directory / f"bundle-{version}")
            self._versions.append(f"digits-edge@{version}")
        self.node = Process(*EDGE, "run", str(node_config(directory)))
        self.url = self.node.url()
        self.switches = 0
        self.fleet.roll_out(self._versions[0])

    def switch(self) -> None:
        """To the other bundle, by a rollout; returns when it has passed its probation."""
        self.switches += 1
        self.fleet.roll_out(self._versions[self.switches % 2])

    def close(self) -> None:
        self.node.end()
        self.fleet.stop()


class Watch:
    """Looks at the node over and over."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.looks: list[Look] = []

    async def look(self) -> Look:
        async with self._session.get(f"{self._url}/metrics") as answer:
            found = dict(_METRICS.findall(await answer.text()))
        return Look(
            *(
                float(found[name])
                for name in (
                    "process_resident_memory_bytes",
                    "process_open_fds",
                    "foothill_threads",
                    "foothill_tasks",
                )
            )
        )

    async def note(self) -> None:
        self.looks.append(await self.look())

    async def settled(self, before: Look) -> Look:
        """When nobody calls any more: what it held before, or what it holds after a good while."""
        give_up_s = time.monotonic() + _SETTLED_WITHIN_S
        while True:
            now = await self.look()
            if (now.files <= before.files and now.tasks <= before.tasks) or time.monotonic() > give_up_s:
                return now
            await asyncio.sleep(0.1)


def since_warm_up(values: Sequence[float]) -> Growth:
    """From the second tenth to the last: what grows a little all the time is too little to be seen between thirds."""
    tenth = max(1, len(values) // 10)
    return Growth(median(values[tenth : 2 * tenth]), median(values[-tenth:]))


def leaks(looks: Sequence[Look], before: Look, after: Look, callers: int = 0) -> list[str]:
    """What grew over the run, and what was not let go of when everybody had left."""
    wrong = []
    for name, values in zip(Look._fields, zip(*looks, strict=True), strict=True):
        grown = growth(values)
        if grown is None:
            wrong.append(f"{name}: too few looks ({len(values)})")
        elif name == "rss_bytes":
            most = max(grown, since_warm_up(values), key=lambda each: each.absolute)
            if exceeds(most, percent=MOST_PERCENT, allowance=MEMORY_NOISE_BYTES):
                wrong.append(f"{name}: {most.percent:+.2f} %, from {most.first:.0f} to {most.last:.0f}")
        elif grown.absolute > FEW + callers:
            wrong.append(f"{name}: from {grown.first:g} to {grown.last:g}")
    wrong += [
        f"{name}: {getattr(after, name):g} when all had left, {getattr(before, name):g} before they came"
        for name in ("files", "tasks")
        if getattr(after, name) > getattr(before, name)
    ]
    return wrong


async def switch_many(site: Site, switches: int, callers: int) -> Verdict:
    """Callers of both hot routes while the model is switched; a look after each switch."""

    async def go(watch: Watch, tally: Tally) -> None:
        for _ in range(switches):
            await asyncio.to_thread(site.switch)
            await watch.note()

    return await _endure(site, hot_kinds(), callers, go, hang_ups=False)


async def soak(site: Site, requests: int, callers: int, switch_every: int, looks: int = 60) -> Verdict:
    """All kinds of requests until there were so many, and a switch now and then."""

    async def go(watch: Watch, tally: Tally) -> None:
        switching: asyncio.Task[None] | None = None
        while tally.requests < requests:
            if tally.requests >= len(watch.looks) * requests / looks:
                await watch.note()
            if tally.requests >= (site.switches + 1) * switch_every and (switching is None or switching.done()):
                if switching is not None:
                    switching.result()
                switching = asyncio.create_task(asyncio.to_thread(site.switch))
            await asyncio.sleep(0.05)
        if switching is not None:
            await switching

    return await _endure(site, all_kinds(), callers, go, hang_ups=True)


Go = Callable[[Watch, Tally], Awaitable[None]]


async def _endure(site: Site, kinds: Sequence[Kind], callers: int, go: Go, *, hang_ups: bool) -> Verdict:
    """Calls while it goes on. The first switch comes before all: what a node loads only once is no growth."""
    started_s, tally, going = time.monotonic(), Tally(), True
    async with aiohttp.ClientSession() as session:
        watch = Watch(site.url, session)
        await asyncio.to_thread(site.switch)
        before = await watch.look()
        talks = [Talk(kinds, tally, random.Random(number), lambda: going) for number in range(callers)]
        calling = [call(talk, site.url, per_connection=_PER_CONNECTION[at % 2]) for at, talk in enumerate(talks)]
        if hang_ups:
            calling.append(hang_up(Talk(kinds, tally, random.Random(callers), lambda: going), site.url))
        tasks = [asyncio.create_task(each) for each in calling]
        try:
            await go(watch, tally)
        finally:
            going = False
            await asyncio.gather(*tasks)
        after = await watch.settled(before)
    wrong = leaks(watch.looks, before, after, callers)
    return _verdict(site, tally, watch.looks, wrong, time.monotonic() - started_s)


def _verdict(site: Site, tally: Tally, looks: Sequence[Look], leaked: list[str], wall_s: float) -> Verdict:
    wrong = [f"{tally.failed} requests failed: {tally.failures[0]}"] if tally.failed else []
    grown = {name: growth(values) for name, values in zip(Look._fields, zip(*looks, strict=True), strict=True)}
    told = {name: _told(each) for name, each in grown.items() if each is not None}
    memory = _told(since_warm_up([look.rss_bytes for look in looks]))
    answered = dict(tally.answered)
    return Verdict(
        wrong + leaked, tally.requests, answered, tally.hung_up, site.switches, told, memory, round(wall_s, 1)
    )


def _told(grown: Growth) -> tuple[float, float, float]:
    return grown.first, grown.last, round(grown.percent, 2)


def main() -> None:
    """Prints what came out as JSON; fails when the node has failed, or holds on to something."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("what", choices=("switches", "soak"))
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--requests", type=int, default=5_000_000)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--switch-every", type=int, default=100_000, help="requests between two switches of a soak")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endurance-") as directory:
        site = Site(Path(directory))
        try:
            if chosen.what == "switches":
                verdict = uvloop.run(switch_many(site, chosen.switches, chosen.callers))
            else:
                verdict = uvloop.run(soak(site, chosen.requests, chosen.callers, chosen.switch_every))
        finally:
            site.close()
    print(json.dumps(verdict._asdict(), indent=1))
    raise SystemExit(bool(verdict.wrong))


if __name__ == "__main__":
    main()
