"""Many seeds of one case under many policies, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence

from router.simulation.case import Case
from router.simulation.results import ORACLE, Report, Times, report, times
from router.simulation.run import Simulation
from router.simulation.world import Arrivals, draw
from runtime.regions import RegionTable


def simulate(
    case: Case,
    table: RegionTable,
    policies: Sequence[str],
    seeds: int,
    *,
    arrivals: Arrivals | None = None,
    processes: int = 1,
    tell: Callable[[], None] = lambda: None,
) -> Report:
    """All policies, and the oracle, in the same worlds. `tell` is called after every seed."""
    every = (ORACLE, *(policy for policy in dict.fromkeys(policies) if policy != ORACLE))
    tasks = [(case, table, every, seed, arrivals) for seed in range(1, seeds + 1)]
    found: list[tuple[Times, ...]] = []

    def take(worlds: Iterable[tuple[Times, ...]]) -> None:
        for one in worlds:
            found.append(one)
            tell()

    if processes == 1:
        take(map(_world, tasks))
    else:
        with multiprocessing.get_context("spawn").Pool(min(processes, seeds)) as pool:
            take(pool.imap(_world, tasks))
    return report(case, {policy: [each[at] for each in found] for at, policy in enumerate(every)})


def _world(task: tuple[Case, RegionTable, Sequence[str], int, Arrivals | None]) -> tuple[Times, ...]:
    case, table, policies, seed, arrivals = task
    world = draw(case, table, seed, arrivals)
    return tuple(times(Simulation(world, policy, seed).run()) for policy in policies)
