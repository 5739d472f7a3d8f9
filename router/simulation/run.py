"""One world under one policy, event by event on a clock of its own."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from contracts.budgets import RetryBudget
from router.simulation.copies import Asked, Copy
from router.simulation.hedging import Hedging
from router.simulation.policies import REPORT_S, RIVALS, Policy, View
from router.simulation.selection import Selection, node_name
from router.simulation.server import Server
from router.simulation.world import Request, World
from runtime.links.http.upstream import Answer

FOOTHILL, HEDGED = "foothill", "foothill-hedged"
POLICIES = (FOOTHILL, HEDGED, *RIVALS)
_MOST_NODES = 3


class Sample(NamedTuple):
    """One request that was answered: when it came, what it took at its router, and which node answered first."""

    at_s: float
    took_ms: float
    node: int


class Queues(NamedTuple):
    """How many requests were at each node."""

    at_s: float
    in_flight: tuple[int, ...]


class Run:
    """What came of a world, in its measured time. `refused_s` is when a node refused a copy, `failed` are requests that
    nobody answered, `left` is what was still somewhere at the end: nothing."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.queues: list[Queues] = []
        self.refused_s: list[float] = []
        self.failed = self.hedges = self.left = 0


class Simulation:
    """Call `run` once. `watch_s`: how often the queues are looked at, 0 never."""

    def __init__(self, world: World, policy: str, seed: int, *, watch_s: float = 0.0) -> None:
        self._world = world
        self._watch_s = watch_s
        self._now_s = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0
        self._open = len(world.requests)
        self._found = Run()
        self._servers = [Server(node_name(at), mean_ms, world.case.lanes) for at, mean_ms in enumerate(world.mean_ms)]
        self._coming: list[list[Copy]] = [[] for _ in self._servers]
        self._policies = [self._policy(policy, router, seed) for router in range(world.case.routers)]
        self._budgets = [RetryBudget() for _ in self._policies]
        self._hedging = [Hedging() for _ in self._policies] if policy == HEDGED else []

    def run(self) -> Run:
        self._plan()
        for request in self._world.requests:
            self._go_on(request.at_s)
            self._come(request)
        self._go_on(None)
        self._found.left = self._open + sum(server.in_flight for server in self._servers) + sum(map(len, self._coming))
        return self._found

    def _go_on(self, until_s: float | None) -> None:
        """To the end where `until_s` is None."""
        pop, events = heapq.heappop, self._events
        while events and (until_s is None or events[0][0] <= until_s):
            self._now_s, _, act, given = pop(events)
            act(*given)
        self._now_s = self._now_s if until_s is None else until_s

    def _at(self, at_s: float, act: Callable[..., None], *given: object) -> None:
        self._planned += 1
        heapq.heappush(self._events, (at_s, self._planned, act, given))

    def _plan(self) -> None:
        """What happens whatever is asked. Nodes do not tell their load in step."""
        case, start_s, sick = self._world.case, self._world.measured_from_s, self._world.sick
        for at, _ in enumerate(self._servers):
            self._at(REPORT_S * (at + 1) / len(self._servers), self._report, at)
        for burst in self._world.bursts:
            self._at(burst.at_s, self._turn, burst.slow)
        if case.mishap == "failing":
            self._at(start_s, self._ail, sick, True)
            self._at(start_s + case.mishap_s, self._ail, sick, False)
        if case.mishap == "joining":
            self._at(start_s, self._join, sick)
        if self._watch_s:
            self._at(start_s, self._look)

    # One request.

    def _come(self, request: Request) -> None:
        self._budgets[request.router].deposit(self._now_s)
        asked = Asked(request)
        copy = self._send(asked)
        if copy is None:
            self._close(asked, None)
        elif self._hedging:
            hedging = self._hedging[request.router]
            hedging.deposit(self._now_s)
            self._at(self._now_s + hedging.wait_ms(copy.expected_ms) / 1000.0, self._hedge, asked)

    def _send(self, asked: Asked) -> Copy | None:
        """None where no node is left."""
        now_s, request = self._now_s, asked.request
        policy = self._policies[request.router]
        choice = policy.pick(now_s, asked.tried)
        if choice is None:
            return None
        node, expected_ms = choice
        way_s = self._world.rtt_ms[request.router][node] * (1.0 + request.jitter) / 2000.0
        copy = Copy(asked, node, now_s, way_s, expected_ms)
        policy.sent(node, now_s)
        asked.tried.add(node)
        asked.out += 1
        self._coming[node].append(copy)
        self._at(now_s + way_s, self._arrive, copy)
        return copy

    def _arrive(self, copy: Copy) -> None:
        self._coming[copy.node].remove(copy)
        server = self._servers[copy.node]
        if server.failing:
            self._at(self._now_s + copy.way_s, self._refused, copy)
        else:
            self._await(server.arrive(copy, self._now_s))

    def _await(self, begun: Copy | None) -> None:
        if begun is not None:
            self._at(begun.ends_s, self._end, begun, begun.ends_s)

    def _end(self, copy: Copy, ends_s: float) -> None:
        if copy.ends_s != ends_s:
            return  # the node's pace has changed since this was planned
        server = self._servers[copy.node]
        told = server.told(copy, self._now_s)
        self._await(server.end(copy, self._now_s))
        self._at(self._now_s + copy.way_s, self._answered, copy, told)

    def _answered(self, copy: Copy, told: dict[str, str]) -> None:
        asked, now_s = copy.asked, self._now_s
        router = asked.request.router
        took_ms = (now_s - copy.sent_s) * 1000.0
        asked.out -= 1
        self._policies[router].answered(copy.node, Answer(200, told, b"", took_ms), copy.expected_ms, now_s)
        if self._hedging:
            self._hedging[router].learn(took_ms, copy.expected_ms)
        if not asked.done:
            self._close(asked, copy)

    def _refused(self, copy: Copy) -> None:
        asked, router = copy.asked, copy.asked.request.router
        asked.out -= 1
        self._policies[router].failed(copy.node, self._now_s)
        if self._measured(asked):
            self._found.refused_s.append(self._now_s)
        if asked.done or asked.out:
            return
        may = len(asked.tried) < _MOST_NODES and self._budgets[router].withdraw(self._now_s)
        if not may or self._send(asked) is None:
            self._close(asked, None)

    def _hedge(self, asked: Asked) -> None:
        late = not asked.done and asked.out == len(asked.tried) == 1
        if late and self._hedging[asked.request.router].may(self._now_s) and self._send(asked) is not None:
            self._found.hedges += self._measured(asked)

    def _close(self, asked: Asked, answered: Copy | None) -> None:
        """Once for each request."""
        asked.done = True
        self._open -= 1
        if not self._measured(asked):
            return
        if answered is None:
            self._found.failed += 1
        else:
            at_s = asked.request.at_s
            self._found.samples.append(Sample(at_s, (self._now_s - at_s) * 1000.0, answered.node))

    def _measured(self, asked: Asked) -> bool:
        return asked.request.at_s >= self._world.measured_from_s

    # What happens to nodes. What repeats ends with the last request.

    def _report(self, at: int) -> None:
        load = self._servers[at].load()
        for policy in self._policies:
            policy.heard(at, load, self._now_s)
        if self._open:
            self._at(self._now_s + REPORT_S, self._report, at)

    def _turn(self, slow: frozenset[int]) -> None:
        for at, server in enumerate(self._servers):
            for copy in server.turn(self._world.case.slow_factor if at in slow else 1.0, self._now_s):
                self._await(copy)

    def _ail(self, at: int, failing: bool) -> None:
        self._servers[at].failing = failing

    def _join(self, at: int) -> None:
        for policy in self._policies:
            policy.joined(at, self._now_s)

    def _look(self) -> None:
        self._found.queues.append(Queues(self._now_s, tuple(server.in_flight for server in self._servers)))
        if self._open:
            self._at(self._now_s + self._watch_s, self._look)

    def _policy(self, name: str, router: int, seed: int) -> Policy:
        world = self._world
        known = set(range(world.case.nodes)) - ({world.sick} if world.case.mishap == "joining" else set())
        rng = random.Random(f"{seed} {name} {router}")
        if name in (FOOTHILL, HEDGED):
            return Selection(world, router, known, rng)
        view = View(router, world.zones, world.rtt_ms[router], world.mean_ms, self._servers, self._coming)
        return RIVALS[name](view, known, rng)
