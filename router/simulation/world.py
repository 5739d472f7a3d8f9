"""One world of a case: nodes, routers, distances and all requests, drawn from a seed, the same for every policy."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from router.simulation.case import Case
from runtime.regions import Region, RegionTable

_LOGNORMAL_SIGMA = 0.8
_CLIENTS = (0.5, 1.5)
"""How many clients a region has, against the others."""
_JITTER = 0.1


class Request(NamedTuple):
    """`size` is 1 in the mean; `jitter` what its ways take beyond the distance, as a share of it."""

    number: int
    at_s: float
    router: int
    size: float
    jitter: float


class Burst(NamedTuple):
    """From `at_s` on, until the next one, these nodes are slow."""

    at_s: float
    slow: frozenset[int]


class World(NamedTuple):
    """`mean_ms[n]` is what a request of size 1 takes at node n, `rtt_ms[r][n]` the distance of router r to it."""

    case: Case
    nodes: tuple[Region, ...]
    routers: tuple[Region, ...]
    mean_ms: tuple[float, ...]
    rtt_ms: tuple[tuple[float, ...], ...]
    requests: tuple[Request, ...]
    bursts: tuple[Burst, ...]
    measured_from_s: float

    @property
    def zones(self) -> list[list[int]]:
        """For each router the nodes that are nearest to it; of several in one place each has its part."""
        zones: list[list[int]] = [[] for _ in self.routers]
        for node in range(len(self.nodes)):
            far_ms = [rtt_ms[node] for rtt_ms in self.rtt_ms]
            near = [router for router, each in enumerate(far_ms) if each == min(far_ms)]
            zones[min(near, key=lambda router: len(zones[router]))].append(node)
        return zones

    @property
    def sick(self) -> int:
        """The node that a mishap meets: the fastest."""
        return min(range(len(self.mean_ms)), key=self.mean_ms.__getitem__)


class Arrivals(NamedTuple):
    """Gaps between requests and their sizes, of mean 1 both, as a trace had them; used again from its start."""

    gaps: Sequence[float]
    sizes: Sequence[float]


def draw(case: Case, table: RegionTable, seed: int, arrivals: Arrivals | None = None) -> World:
    """The world that `seed` makes of a case. Raises KeyError where the table has no regions in the area."""
    rng = random.Random(seed)
    regions = regions_of(table, case.area)
    homes = rng.sample(regions, len(regions))
    nodes = tuple(homes[number % len(homes)] for number in range(case.nodes))
    mean_ms = tuple(case.slowest_ms * case.spread ** -rng.random() for _ in nodes)
    routers = place_routers(table, regions, case.routers)
    rtt_ms = tuple(tuple(table.rtt_ms(router.name, node.name) for node in nodes) for router in routers)
    rate = case.load * case.lanes * 1000.0 * sum(1.0 / each for each in mean_ms)
    warm_up = math.ceil(rate * case.warm_up_s)
    requests = _requests(case, table, regions, routers, rate, case.requests + warm_up, arrivals, rng)
    end_s = requests[-1].at_s
    bursts = tuple(_bursts(case, end_s, rng))
    return World(case, nodes, routers, mean_ms, rtt_ms, requests, bursts, requests[warm_up].at_s)


def regions_of(table: RegionTable, area: str) -> list[Region]:
    """Raises KeyError where there are none."""
    found = [each for each in table.regions.values() if area in ("world", each.continent.lower().replace(" ", "-"))]
    if not found:
        raise KeyError(f"No region of the table lies in {area!r}.")
    return found


def place_routers(table: RegionTable, regions: Sequence[Region], count: int) -> tuple[Region, ...]:
    """One after the other where it brings the regions nearest to a router; once each has one, a second one there."""
    placed: list[Region] = []
    for _ in range(min(count, len(regions))):
        free = [each for each in regions if each not in placed]
        placed.append(min(free, key=lambda each: _far(table, regions, [*placed, each])))
    return tuple(placed[number % len(placed)] for number in range(count))


def _far(table: RegionTable, regions: Sequence[Region], routers: Sequence[Region]) -> float:
    return sum(min(table.rtt_ms(router.name, each.name) for router in routers) for each in regions)


def _requests(
    case: Case,
    table: RegionTable,
    regions: Sequence[Region],
    routers: Sequence[Region],
    rate: float,
    count: int,
    arrivals: Arrivals | None,
    rng: random.Random,
) -> tuple[Request, ...]:
    """Clients ask the router that is nearest to them."""
    clients = [rng.uniform(*_CLIENTS) for _ in regions]
    nearest = [_nearest(table, each, routers) for each in regions]
    homes = rng.choices(nearest, weights=clients, k=count)
    requests, at_s = [], 0.0
    for number, home in enumerate(homes):
        gap = arrivals.gaps[number % len(arrivals.gaps)] if arrivals else rng.expovariate(1.0)
        size = arrivals.sizes[number % len(arrivals.sizes)] if arrivals else _size(case, rng)
        at_s += gap / rate
        requests.append(Request(number, at_s, rng.choice(home), size, _JITTER * rng.random()))
    return tuple(requests)


def _nearest(table: RegionTable, region: Region, routers: Sequence[Region]) -> list[int]:
    rtt_ms = [table.rtt_ms(region.name, router.name) for router in routers]
    return [number for number, each in enumerate(rtt_ms) if each == min(rtt_ms)]


def _size(case: Case, rng: random.Random) -> float:
    if case.services == "constant":
        return 1.0
    if case.services == "lognormal":
        return rng.lognormvariate(-(_LOGNORMAL_SIGMA**2) / 2, _LOGNORMAL_SIGMA)
    return rng.expovariate(1.0)


def _bursts(case: Case, end_s: float, rng: random.Random) -> list[Burst]:
    count = math.ceil(case.slow_share * case.nodes)
    if count == 0:
        return []
    starts = [number * case.burst_s for number in range(math.ceil(end_s / case.burst_s))]
    return [Burst(at_s, frozenset(rng.sample(range(case.nodes), count))) for at_s in starts]
