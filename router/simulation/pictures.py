"""The pictures of `docs/routing.md`: `python -m router.simulation.pictures docs/pictures`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from router.simulation.campaign import simulate
from router.simulation.case import Case
from router.simulation.chart import Line, Panel, draw
from router.simulation.results import quantile
from router.simulation.run import FOOTHILL, HEDGED, Run, Simulation
from router.simulation.world import World
from router.simulation.world import draw as draw_world
from runtime.regions import RegionTable, load

SEED = 1
_LOOK_S = 0.05
_BIN_S = 0.25
_JOINED_S = 3.0
_LOADS = (0.5, 0.6, 0.7, 0.8, 0.9)
_TAIL = tuple(1.0 - 10.0 ** (-number / 8) for number in range(4, 29))


def loads(table: RegionTable, *, seeds: int = 6, requests: int = 12_000) -> str:
    """p99 against the oracle's, by load."""
    policies = (FOOTHILL, "own-in-flight", "least-connections", "p2c")
    rows: dict[str, list[tuple[float, float]]] = {policy: [] for policy in policies}
    for share in _LOADS:
        found = simulate(Case(load=share, requests=requests), table, policies, seeds)
        for row in found.rows:
            if row.policy in rows:
                rows[row.policy].append((share, row.times_oracle.mean))
    lines = [Line(policy, points) for policy, points in rows.items()]
    return draw("p99 by load", [Panel("p99, times the oracle's", "load", "", lines, most=4.0)])


def herding(table: RegionTable, *, requests: int = 8_000) -> str:
    """Queues of every fourth node: routers believe the last report, or count too."""
    world = draw_world(Case(requests=requests), table, SEED)
    panels = [
        Panel(title, "seconds", "in flight, node by node", _queues(world, policy))
        for title, policy in (("Reports of up to 1 s ago", "stale-reports"), ("Foothill", FOOTHILL))
    ]
    return draw("Herding on stale reports", panels)


def joining(table: RegionTable, *, requests: int = 6_000) -> str:
    """In flight at a node that nobody knew."""
    world = draw_world(Case(requests=requests, area="europe", mishap="joining"), table, SEED)
    lines = [
        Line(name, _since_join(world, policy))
        for name, policy in (("scored 0 until it answers", "fastest-so-far"), ("Foothill", FOOTHILL))
    ]
    return draw("A node joins", [Panel("A new node", "seconds since it joined", "in flight there", lines)])


def failing(table: RegionTable, *, requests: int = 12_000) -> str:
    """Requests that a node refuses at once, for five seconds."""
    world = draw_world(Case(requests=requests, area="europe", mishap="failing"), table, SEED)
    lines = [
        Line(name, _rate([at_s - world.measured_from_s for at_s in _watched(world, policy).refused_s]))
        for name, policy in (("by time to answer alone", "fastest-so-far"), ("Foothill", FOOTHILL))
    ]
    panel = Panel("One node refuses everything for 5 s", "seconds", "refused requests a second", lines)
    return draw("Failing fast looks fast", [panel])


def stragglers(table: RegionTable, *, requests: int = 60_000) -> str:
    """The tail of times with slow nodes."""
    world = draw_world(Case(requests=requests, slow_share=0.05), table, SEED)
    lines = [
        Line(policy, _tail(Simulation(world, policy, SEED).run()))
        for policy in (FOOTHILL, HEDGED, "least-connections", "oracle")
    ]
    panel = Panel("5 % of the nodes ten times as slow", "ms", "% of requests that take longer", lines, log=True)
    return draw("Stragglers", [panel])


PICTURES: dict[str, Callable[[RegionTable], str]] = {
    "loads": loads,
    "herding": herding,
    "joining": joining,
    "failing": failing,
    "stragglers": stragglers,
}


def main(folder: Path) -> None:
    """Draws all of them: about two minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = load()
    for name, picture in PICTURES.items():
        (folder / f"{name}.svg").write_text(picture(table), encoding="utf-8")


def _watched(world: World, policy: str) -> Run:
    return Simulation(world, policy, SEED, watch_s=_LOOK_S).run()


def _since_join(world: World, policy: str) -> list[tuple[float, float]]:
    at = [(each.at_s - world.measured_from_s, each.in_flight[world.sick]) for each in _watched(world, policy).queues]
    return [(after_s, in_flight) for after_s, in_flight in at if after_s <= _JOINED_S]


def _queues(world: World, policy: str) -> list[Line]:
    seen = [each for each in _watched(world, policy).queues if each.at_s <= world.requests[-1].at_s]
    return [
        Line("", [(at_s - world.measured_from_s, in_flight[node]) for at_s, in_flight in seen])
        for node in range(0, len(world.nodes), 4)
    ]


def _rate(times_s: Sequence[float]) -> list[tuple[float, float]]:
    bins = Counter(int(at_s / _BIN_S) for at_s in times_s)
    return [(number * _BIN_S, bins[number] / _BIN_S) for number in range(int(8.0 / _BIN_S))]


def _tail(run: Run) -> list[tuple[float, float]]:
    took_ms = sorted(sample.took_ms for sample in run.samples)
    return [(quantile(took_ms, share), 100.0 * (1.0 - share)) for share in _TAIL]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
