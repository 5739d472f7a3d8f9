"""Who gets a request: Foothill's own selection, as it runs in a router, and what others do.

A policy sits in one router. It is told of every copy that it sends and of what comes of it, and of the nodes' loads.
The rivals know distances and the mean time of a request at each node from the start, which no real router does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from typing import NamedTuple, Protocol

from contracts.messages import Load
from router.simulation.copies import Copy
from router.simulation.server import Server
from runtime.links.http.upstream import Answer

REPORT_S = 1.0
"""So often nodes tell their load."""
_OVERPROVISIONED = 1.4


class Choice(NamedTuple):
    """A node's number, and when it is expected to answer; 0 where a policy expects nothing."""

    node: int
    expected_ms: float


class View(NamedTuple):
    """What a policy may look at. `servers` and `coming`, what is on its way to each, are the oracle's alone."""

    router: int
    zones: Sequence[Sequence[int]]
    """For each router the nodes that are nearest to it."""
    rtt_ms: Sequence[float]
    mean_ms: Sequence[float]
    servers: Sequence[Server]
    coming: Sequence[Sequence[Copy]]


class Policy(Protocol):
    """What the simulator asks of one. Nodes go by their numbers."""

    def pick(self, now_s: float, tried: Set[int]) -> Choice | None: ...
    def sent(self, node: int, now_s: float) -> None: ...
    def answered(self, node: int, answer: Answer, expected_ms: float, now_s: float) -> None: ...
    def failed(self, node: int, now_s: float) -> None: ...
    def heard(self, node: int, load: Load, now_s: float) -> None: ...
    def joined(self, node: int, now_s: float) -> None: ...


class Rival:
    """Counts this router's requests at each node; a node that failed is one like any other."""

    def __init__(self, view: View, known: Set[int], rng: random.Random) -> None:
        self.view = view
        self.rng = rng
        self.known = sorted(known)
        self.in_flight = [0] * len(view.mean_ms)

    def pick(self, now_s: float, tried: Set[int]) -> Choice | None:
        open_ = [node for node in self.known if node not in tried] if tried else self.known
        return self.choose(open_, now_s) if open_ else None

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        raise NotImplementedError

    def sent(self, node: int, now_s: float) -> None:
        self.in_flight[node] += 1

    def answered(self, node: int, answer: Answer, expected_ms: float, now_s: float) -> None:
        self.in_flight[node] -= 1

    def failed(self, node: int, now_s: float) -> None:
        self.in_flight[node] -= 1

    def heard(self, node: int, load: Load, now_s: float) -> None:
        pass

    def joined(self, node: int, now_s: float) -> None:
        self.known.append(node)

    def expected_ms(self, node: int) -> float:
        """By distance, speed and this router's own requests."""
        return self.view.rtt_ms[node] + self.view.mean_ms[node] * (self.in_flight[node] + 1)


class RoundRobin(Rival):
    _turn = -1

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        self._turn += 1
        return Choice(nodes[self._turn % len(nodes)], 0.0)


class LeastConnections(Rival):
    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        least = min([self.in_flight[node] for node in nodes])
        return Choice(self.rng.choice([node for node in nodes if self.in_flight[node] == least]), 0.0)


class PowerOfTwo(Rival):
    """The better of two nodes drawn at random."""

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        drawn = (self.rng.choice(nodes), self.rng.choice(nodes))
        node = min(drawn, key=self.expected_ms)
        return Choice(node, self.expected_ms(node))


class OwnInFlight(Rival):
    """The best of all, by what this router alone has there."""

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        return _least(nodes, [self.expected_ms(node) for node in nodes])


class Zones(Rival):
    """Like Envoy: the nodes of the own zone first, as far as they are enough, with the less loaded of two in a zone.

    A router's zone is the nodes that are nearest to it. Its share of the nodes, 1.4 times overprovisioned, is held
    against its share of the routers; what is beyond goes to other zones by what they have left. After
    https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware
    """

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        open_ = set(nodes)
        zones = [[node for node in zone if node in open_] for zone in self.view.zones]
        enough = [_OVERPROVISIONED * len(zone) * len(zones) / len(nodes) for zone in zones]
        mine = self.view.router
        if self.rng.random() >= enough[mine]:
            mine = self.rng.choices(range(len(zones)), weights=[max(1e-9, each - 1.0) for each in enough])[0]
        zone = zones[mine] or nodes
        drawn = (self.rng.choice(zone), self.rng.choice(zone))
        return Choice(min(drawn, key=self.in_flight.__getitem__), 0.0)


class StaleReports(Rival):
    """The trap: the best of all, by what each node last told of its queue, taken for the truth until the next word."""

    def __init__(self, view: View, known: Set[int], rng: random.Random) -> None:
        super().__init__(view, known, rng)
        self._told = [0] * len(view.mean_ms)

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        rtt_ms, mean_ms, told = self.view.rtt_ms, self.view.mean_ms, self._told
        return _least(nodes, [rtt_ms[node] + mean_ms[node] * (told[node] + 1) for node in nodes])

    def heard(self, node: int, load: Load, now_s: float) -> None:
        self._told[node] = load.in_flight


class FastestSoFar(Rival):
    """The trap: the best of all by the mean time of its answers so far, refusals too, and 0 before the first."""

    def __init__(self, view: View, known: Set[int], rng: random.Random) -> None:
        super().__init__(view, known, rng)
        self._service_ms = [0.0] * len(view.mean_ms)

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        rtt_ms, service_ms, mine = self.view.rtt_ms, self._service_ms, self.in_flight
        return _least(nodes, [rtt_ms[node] + service_ms[node] * (mine[node] + 1) for node in nodes])

    def heard(self, node: int, load: Load, now_s: float) -> None:
        if load.service_ms:
            self._service_ms[node] = load.service_ms

    def failed(self, node: int, now_s: float) -> None:
        super().failed(node, now_s)
        self._service_ms[node] *= 0.9


class Oracle(Rival):
    """Knows what every node has still to do and what is on its way there, from all routers, and how long all of that
    takes. It sends each request where it is answered first, and knows of the request itself only what is usual."""

    def choose(self, nodes: Sequence[int], now_s: float) -> Choice:
        return _least(nodes, [self._answer_ms(node, now_s) for node in nodes])

    def _answer_ms(self, node: int, now_s: float) -> float:
        view, server = self.view, self.view.servers[node]
        rtt_ms, pace_ms = view.rtt_ms[node], server.mean_ms * server.slow
        arrives_ms = rtt_ms / 2
        free_ms = server.work_ms(now_s)
        for copy in view.coming[node]:
            comes_ms = (copy.sent_s + copy.way_s - now_s) * 1000.0
            if comes_ms <= arrives_ms:
                free_ms = max(free_ms, comes_ms) + copy.size * pace_ms
        return max(free_ms, arrives_ms) + pace_ms + rtt_ms / 2


def _least(nodes: Sequence[int], expected_ms: Sequence[float]) -> Choice:
    least_ms = min(expected_ms)
    return Choice(nodes[expected_ms.index(least_ms)], least_ms)


Build = Callable[[View, Set[int], random.Random], Policy]

RIVALS: dict[str, Build] = {
    "oracle": Oracle,
    "own-in-flight": OwnInFlight,
    "p2c": PowerOfTwo,
    "zones": Zones,
    "least-connections": LeastConnections,
    "round-robin": RoundRobin,
    "stale-reports": StaleReports,
    "fastest-so-far": FastestSoFar,
}
