"""The best node for the next request: those that may have it as a field, near ones first, figures at hand.

What is pure of it is in `selection.py`; here it is kept up, so that one pick costs microseconds. Up to 64 near nodes
are all compared, and the least expected time wins, ties at random. Of more nodes two are drawn for each pick, and
compared with the near ones: so requests spill over when those are busy, and no crowd runs to one of thousands
(Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing"). One pick in a hundred goes to a node that
could be the best if it was idle and well: what nobody asks tells nothing. What has failed, or was slow when it was last
asked, has its trials (`trials.py`).

Where nodes are full, what matters least is refused first: requests of low priority leave room on every node for the
others (Beyer et al. 2016, "Site Reliability Engineering", ch. 21, criticality; Netflix 2024, "Enhancing Netflix
Reliability with Service-Level Prioritized Load Shedding", partitions of one adaptive limit).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from contracts.headers import Priority
from router.node import LARGE_BYTES, Node
from router.nodes import Nodes
from router.selection import TIE_MS, Picked, Query, assume_usual, of_version, refusal, score, within
from router.trials import Trials

NEAR: Final = 64
EXPLORE = 0.01
FADE_S = 0.1
"""After so long loads and failures that were told have faded enough to look again."""
ORDER_S = 5.0
"""After so long measured distances have changed enough to look again which nodes are near."""
SHARES: Mapping[Priority, float] = {"high": 1.0, "normal": 0.9, "low": 0.7}
"""So much of each node's limit a priority may fill: the last tenth is for what is high alone, the fifth before it not
for what is low. One request may always be there."""
PANIC = 0.5
"""Where fewer of those that should be well are, ejections are not believed: Envoy's default panic threshold,
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/panic_threshold"""
_WINDOW = 512
"""So many of the nearest are looked at for 64 that may have requests."""
_FIELDS = 256
_NONE: frozenset[str] = frozenset()


class Field:
    """The nodes that serve one model, in one version where one is asked for, and lie inside one claim. Of each, `share`
    may be filled."""

    def __init__(self, nodes: Nodes, query: Query, rng: random.Random, share: float = 1.0) -> None:
        self._share = share
        self._nodes = nodes
        self._query = query
        self._rng = rng
        self._version = self._pulse = -1
        self._order_until_s = self._fade_until_s = self._panic_until_s = -math.inf
        self._panic = False
        self._claimed: list[Node] = []
        self._ordered: list[Node] = []
        self._near: list[Node] = []
        self._trials = Trials()
        self._due: list[Node] = []
        self._picks = 0
        self._until_explore = int(rng.expovariate(EXPLORE)) + 1
        self._kept: Picked | None = None

    def pick(
        self, now_s: float, left_ms: float = math.inf, size_bytes: int = 0, *, tried: AbstractSet[str] = _NONE
    ) -> Picked | None:
        """Reserve it before any await. None where no node may have the request, or can answer it in `left_ms`. Whoever
        has tried others is not sent to look at a node."""
        if self._pulse != self._nodes.pulse or now_s >= self._fade_until_s:
            self._keep_up(now_s)
        if self._kept is not None and not tried and (kept := self._taken(now_s, left_ms)) is not None:
            return kept
        field = self._near
        if len(self._claimed) > NEAR:
            field = [*field, *self._drawn(now_s)]
        expected_ms = [node.next_ms for node in field]
        if size_bytes >= LARGE_BYTES:
            expected_ms = [ms + node.transfer_ms(size_bytes) for ms, node in zip(expected_ms, field, strict=True)]
        if tried:
            expected_ms = [math.inf if node.name in tried else ms for ms, node in zip(expected_ms, field, strict=True)]
        self._picks += 1
        at = self._on_trial(expected_ms, field, now_s) if self._due and not tried else None
        if at is None:
            at = self._best(expected_ms, field, explores=not tried)
        while at is not None:
            node = field[at]
            time_ms = expected_ms[at] - node.charge_ms
            if node.in_flight < node.most * self._share and time_ms * node.sure <= left_ms:
                return Picked(node, time_ms)
            expected_ms[at] = math.inf
            at = self._best(expected_ms, field, explores=not tried)
        return None

    def keep(self, picked: Picked) -> None:
        """Of a pick that came to nothing: the next one is the same, so that whoever was to be looked at is."""
        self._kept = picked

    def last(self, now_s: float, *, tried: AbstractSet[str] = _NONE) -> Picked | None:
        """Where nothing better is left: nodes that keep failing too, and those that are expected to be late."""
        self._keep_up(now_s)
        return self._least(self._all(now_s, tried), now_s)

    def ejected(self, now_s: float, *, tried: AbstractSet[str] = _NONE) -> Picked | None:
        """The best of those that are left alone because they keep failing, where too few others are left to believe it.

        Where most nodes fail at once, it is seldom they who are to blame, and the few that are left would be next.
        """
        self._keep_up(now_s)
        if not self._panics(now_s):
            return None
        left_alone = [node for node in self._all(now_s, tried) if refusal(node, self._query, now_s) is not None]
        return self._least(left_alone, now_s)

    def here(self, now_s: float, *, left_ms: float = math.inf) -> bool:
        """Whether there are nodes that may have requests, and could answer in `left_ms` if they had no others."""
        self._keep_up(now_s)
        return any(node.idle_ms <= left_ms for node in self._near)

    def _taken(self, now_s: float, left_ms: float) -> Picked | None:
        """The pick that was kept, where it still may have a request, and this one."""
        kept, self._kept = self._kept, None
        if kept is None or refusal(kept.node, self._query, now_s) is not None:
            return None
        room = kept.node.in_flight < kept.node.most * self._share
        return kept if room and kept.expected_ms * kept.node.sure <= left_ms else None

    def _on_trial(self, expected_ms: list[float], field: list[Node], now_s: float) -> int | None:
        """One that is due, and would be the best if it was well."""
        due, self._due = self._due, []
        least_ms = min(expected_ms)
        for at, node in enumerate(field):
            if node in due and not node.in_flight:
                well_ms = (node.hoped_ms if node.well else node.idle_ms) + node.cost_ms
                if well_ms < least_ms < expected_ms[at]:
                    self._trials.begin(node, now_s, self._picks)
                    return at
        return None

    def _all(self, now_s: float, tried: AbstractSet[str] = _NONE) -> list[Node]:
        """Those that may have the request, ejected or not."""
        query = msgspec.structs.replace(self._query, tried=tried, ejected=True)
        return [node for node in self._ordered if refusal(node, query, now_s) is None]

    def _panics(self, now_s: float) -> bool:
        """Looked at as often as what fades: whoever asks is full, and has no time to count."""
        if now_s >= self._panic_until_s:
            self._panic_until_s = now_s + FADE_S
            every = self._all(now_s)
            well = sum(refusal(node, self._query, now_s) is None for node in every)
            self._panic = well < PANIC * len(every)
        return self._panic

    def _least(self, nodes: list[Node], now_s: float) -> Picked | None:
        """That with the least score of those that have room."""
        fit = [node for node in nodes if node.in_flight < node.most * self._share]
        if not fit:
            return None
        scored = ((node, score(node, node.rtt_ms.value(), now_s)) for node in fit)
        node, found = min(scored, key=lambda each: each[1].total_ms)
        return Picked(node, found.time_ms)

    def _best(self, expected_ms: list[float], field: list[Node], *, explores: bool) -> int | None:
        """The least, or any of those as good."""
        least_ms = min(expected_ms, default=math.inf)
        if least_ms == math.inf:
            return None
        self._until_explore -= 1
        if self._until_explore <= 0 and explores:
            self._until_explore = int(self._rng.expovariate(EXPLORE)) + 1
            worth = self._worth(expected_ms, field, least_ms)
            if worth:
                return worth[int(self._rng.random() * len(worth))]
        most_ms = least_ms + TIE_MS
        ties = [at for at, ms in enumerate(expected_ms) if ms <= most_ms]
        return ties[int(self._rng.random() * len(ties))]

    @staticmethod
    def _worth(expected_ms: list[float], field: list[Node], least_ms: float) -> list[int]:
        """Those that could be the best, and do not seem so. Who has failed has its trials."""
        told = enumerate(zip(expected_ms, field, strict=True))
        return [at for at, (ms, node) in told if node.well and node.idle_ms + node.cost_ms < least_ms < ms < math.inf]

    def _drawn(self, now_s: float) -> list[Node]:
        """Two of all, as far as they may have the request."""
        claimed, random_ = self._claimed, self._rng.random
        drawn = {claimed[int(random_() * len(claimed))] for _ in range(2)}
        found = [node for node in drawn if refusal(node, self._query, now_s) is None]
        for node in found:
            node.settle(now_s)
        return found

    def _keep_up(self, now_s: float) -> None:
        """Which nodes are near, how they are, and until when that holds."""
        if self._version != self._nodes.version or now_s >= self._order_until_s:
            self._version, self._order_until_s = self._nodes.version, now_s + ORDER_S
            self._order()
        self._pulse, self._fade_until_s = self._nodes.pulse, now_s + FADE_S
        fit = (node for node in self._ordered if refusal(node, self._query, now_s) is None)
        self._near = list(itertools.islice(fit, NEAR))
        for node in self._near:
            node.settle(now_s)
        self._due = self._trials.due(self._near, now_s, self._picks)

    def _order(self) -> None:
        query = self._query
        serving = of_version(self._nodes.serving(query.model), query.model, query.version)
        self._claimed = [node for node in serving if within(node, query)]
        assume_usual(self._claimed)
        self._ordered = heapq.nsmallest(_WINDOW, self._claimed, key=lambda node: node.rtt_ms.value())


class Fields:
    """One field for each model, claim, version, priority and list of capabilities that was asked for."""

    def __init__(self, nodes: Nodes, rng: random.Random) -> None:
        self._nodes = nodes
        self._rng = rng
        self._fields: dict[tuple[str, tuple[str, ...], str, Priority, tuple[str, ...]], Field] = {}

    def of(
        self,
        model: str,
        residency: tuple[str, ...],
        version: str = "",
        priority: Priority = "high",
        capabilities: tuple[str, ...] = (),
    ) -> Field:
        key = (model, residency, version, priority, capabilities)
        field = self._fields.get(key)
        if field is None:
            if len(self._fields) >= _FIELDS:
                self._fields.clear()  # callers make up names and claims
            query = Query(model, residency, version=version, capabilities=capabilities)
            field = self._fields[key] = Field(self._nodes, query, self._rng, SHARES[priority])
        return field
