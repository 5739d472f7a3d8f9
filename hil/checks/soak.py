"""The soak: steady load for a long time, and what the process takes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from contracts.acceptance import Check
from hil.bench import Bench
from hil.boards import Limits
from hil.exposition import Vitals
from hil.growth import LEAST_SAMPLES, Growth, exceeds, growth
from hil.load import Shoot, Tally, closed_loop, lasting
from hil.node import FAULTS

_SAMPLES = 60
_SHORTEST_S = 0.25


class Taken(msgspec.Struct, frozen=True):
    """How the node's memory, open files and threads have grown; None where it does not tell."""

    memory: Growth | None
    files: Growth | None
    threads: Growth | None


async def soak(bench: Bench) -> list[Check]:
    """All models at once, each with its share of the requests under way."""
    share = max(1, bench.plan.soak_concurrency // max(1, len(bench.subjects)))
    shoots = [await bench.shoot_at(subject) for subject in bench.subjects]
    bench.say(f"soaking for {bench.plan.soak_s:g} s with {share * len(shoots)} requests at once")
    async with bench.sensing("soak"):
        tallies, vitals = await _soak(bench, shoots, share)
    bench.soak_per_s = sum(tally.throughput for tally in tallies)
    taken = Taken(
        _growth([look.resident_bytes for look in vitals]),
        _growth([look.open_files for look in vitals]),
        _growth([look.threads for look in vitals]),
    )
    answered = sum(tally.answered for tally in tallies)
    faults = [*_failures(tallies), *judge(taken, bench.board.limits, looks=len(vitals))]
    told = f"{answered} answers in {bench.plan.soak_s:g} s, {_told(taken)}"
    figures = {"answered": float(answered), "per_s": bench.soak_per_s, **_figures(taken)}
    outcome = Check("soak", "failed" if faults else "passed", "; ".join([*faults, told]), figures=figures)
    return [outcome]


async def _soak(bench: Bench, shoots: Sequence[Shoot], share: int) -> tuple[list[Tally], list[Vitals]]:
    done = lasting(bench.plan.soak_s)
    looking = asyncio.create_task(_look(bench, done))
    try:
        tallies = await asyncio.gather(*(closed_loop(shoot, concurrency=share, until=done) for shoot in shoots))
        return list(tallies), await looking
    finally:
        looking.cancel()


async def _look(bench: Bench, done: Callable[[], bool]) -> list[Vitals]:
    """A look that fails is left out: the load's own failures tell of a node that is away."""
    every_s = max(_SHORTEST_S, bench.plan.soak_s / _SAMPLES)
    looks: list[Vitals] = []
    while not done():
        await asyncio.sleep(every_s)
        try:
            looks.append(await bench.node.vitals())
        except FAULTS:
            continue
    return looks


def judge(taken: Taken, limits: Limits, *, looks: int) -> list[str]:
    """What is over its limit, with the limit. Pure."""
    if taken.memory is None:
        few = f"{looks} looks at /metrics are too few, {LEAST_SAMPLES} needed: soak for longer"
        return [few if looks < LEAST_SAMPLES else "/metrics does not tell process_resident_memory_bytes"]
    faults = []
    if exceeds(taken.memory, percent=limits.max_growth_percent, allowance=limits.growth_allowance_bytes):
        allowed = f"{limits.max_growth_percent:g} % and {limits.growth_allowance_bytes / 1e6:g} MB are allowed"
        faults.append(
            f"memory grew by {taken.memory.percent:.1f} % ({taken.memory.absolute / 1e6:.1f} MB) past its warm-up; "
            f"{allowed}"
        )
    for what, grown, most in (
        ("open files", taken.files, limits.max_file_growth),
        ("threads", taken.threads, limits.max_thread_growth),
    ):
        if grown is not None and grown.absolute > most:
            faults.append(f"{what} grew by {grown.absolute:.0f} to {grown.last:.0f}; {most} are allowed")
    return faults


def _growth(values: Sequence[float | None]) -> Growth | None:
    return growth([value for value in values if value is not None])


def _failures(tallies: Sequence[Tally]) -> list[str]:
    """A steady load far below the most must all be answered."""
    sent = sum(tally.answered + tally.failed + tally.refused for tally in tallies)
    failed = sum(tally.failed + tally.refused for tally in tallies)
    said = next((tally.faults[0] for tally in tallies if tally.faults), "")
    return [f"{failed} of {sent} requests failed ({said})"] if failed else []


def _told(taken: Taken) -> str:
    if taken.memory is None:
        return "growth unknown"
    return f"memory {taken.memory.percent:+.2f} % at {taken.memory.last / 1e6:.0f} MB past its warm-up"


def _figures(taken: Taken) -> dict[str, float]:
    figures: dict[str, float] = {}
    if taken.memory is not None:
        figures |= {"memory_bytes": taken.memory.last, "memory_growth_percent": taken.memory.percent}
    for name, grown in (("open_files", taken.files), ("threads", taken.threads)):
        if grown is not None:
            figures |= {name: grown.last, f"{name}_growth": grown.absolute}
    return figures
