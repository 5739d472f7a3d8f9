"""One edge node: who it is, how it has been doing, and what its next answer is expected to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Literal

from contracts import headers
from contracts.circuits import Circuit, Event
from contracts.gradient import Gradient2
from contracts.messages import Identity, Load, Reported, Status
from contracts.places import Place, prior_rtt_ms
from contracts.timing import TOTAL, parse_server_timing
from router.health import Event as Probed
from router.health import Health
from runtime.links.escalation.estimates import Fading, Quantile, Shrunk
from runtime.links.http.upstream import Answer

Ending = Literal["succeeded", "failed", "abandoned"]

MOST_IN_FLIGHT = 1024
"""Requests that one worker has at one node; fewer as soon as that makes answers slow."""
UNKNOWN_SERVICE_MS = 5.0
FAILURE_MS = 500.0
DOUBT_MS = FAILURE_MS / 2
"""What a node is charged of which nobody knows how it is: it may as well fail as not."""
PRIOR_MS_PER_MB = 10.0
LARGE_BYTES: Final = 65_536
SLOW_START_S, SLOW_START = 10.0, 0.1
"""A node that is back gets a tenth of its share at first, and all of it after so long."""
LEARN_S: Final = 0.005
FRESH_S = 10.0
"""For so long a node's word on its service time is believed; then it is halved every so often towards the usual."""
_NEVER = 0.001
_SURE, _SLOW = 0.9, 0.95
_LOAD_HALF_LIFE_S = 1.0
_FAILURE_HALF_LIFE_S = 10.0
_MOST_LOAD = 1e8
_SMOOTHED = 0.03
_OTHERS_SMOOTHED = 0.3
_JUMP = 2.0
DRAINED = 0.25
"""For so much of a round trip a node works off what is there: half of it the request is on its way, and in that time
others send there too."""


def _nothing() -> None:
    pass


class Node:
    """One edge node. Only `reserve` and `release` change what requests share, and neither awaits.

    `changed` is called when it may have requests, or may have none, that it could not, or could, before.
    `since_s` is since when it is back, from which on it gets its share of requests little by little.

    `failed_s` is when its last request failed, None where that went well; `learned_s` when an answer was learned from
    last, and `quick_last`, that this one took less than half of what is believed of the node.

    An answer is expected `next_ms` after the next request is sent: `still_ms`, and `each_ms` for each request of this
    router's there, as of when `settle` was called, but never within `least_ms`; `idle_ms` if nobody else was there, and
    nothing failed any more; `hoped_ms` if it was no slower than half of the nodes are, too. Of that, but for the last
    two, `charge_ms` are no time that passes: its recent failures, doubts and its cost, which make others better.
    """

    __slots__ = (
        "_changed", "_failures", "_margin", "_others", "_service_told_s", "_slow", "_status", "_status_s", "_told_s",
        "capabilities", "charge_ms", "circuit", "cost", "cost_ms", "each_ms", "failed_s", "health", "hoped_ms",
        "identity", "idle_ms", "in_flight", "learned_s", "least_ms", "limit", "middle_ms", "models", "most",
        "next_ms", "place", "quick_last", "quiet", "rtt_ms", "service_ms", "since_s", "static", "still_ms", "sure",
        "transfer_ms_per_mb", "usual_ms", "well",
    )  # fmt: skip

    def __init__(self, identity: Identity, router_place: Place | None, changed: Callable[[], None] = _nothing) -> None:
        self.identity = identity
        self.place = Place(identity.lat, identity.lon)
        self.static = False
        self.health: Health | None = None
        """What probes say of a static node; None: it is not probed, and taken for online."""
        self.quiet = False
        """It says that it is online, and nobody has heard from it for long."""
        self.models: Mapping[str, str] = {}
        """Logical models that answer here now, with the bundle (name@version) where the node tells it."""
        self.capabilities: frozenset[str] = frozenset()
        """What its operator says it has."""
        self.circuit = Circuit()
        self.limit = Gradient2(MOST_IN_FLIGHT)
        self.in_flight = 0
        self.most = float(MOST_IN_FLIGHT)
        """So many requests of this router's may be there at once."""
        self.rtt_ms = Shrunk(prior_rtt_ms(router_place, self.place) if router_place else 0.0)
        self.transfer_ms_per_mb = Shrunk(PRIOR_MS_PER_MB)
        self.service_ms = 0.0
        self.usual_ms = self.middle_ms = UNKNOWN_SERVICE_MS
        """What a request takes at nodes like this one, mean and median: it is taken for an average one until it has
        told."""
        self.idle_ms = self.hoped_ms = self.least_ms = self.still_ms = self.each_ms = self.charge_ms = 0.0
        self.next_ms = 0.0
        self.cost = self.cost_ms = 0.0
        """What one answer costs, in the operator's unit, and what that weighs in the score."""
        self.since_s: float | None = None
        self._status: Status | None = None
        self._changed = changed
        self._others = Fading(half_life_s=_LOAD_HALF_LIFE_S, smoothing=_OTHERS_SMOOTHED)
        self._told_s = -math.inf
        self._status_s = -math.inf
        self._service_told_s = math.inf
        self._failures = Fading(half_life_s=_FAILURE_HALF_LIFE_S)
        self._failures.replace(0.0, 0.0)
        self.well = True
        """Nothing has failed here for so long that one more success changes nothing."""
        self.failed_s: float | None = None
        self.quick_last = False
        self.learned_s = -math.inf
        self._margin = Quantile(_SURE)
        self.sure = self._margin.value
        """Within so many times the expected time nine of ten answers came."""
        self._slow = Quantile(_SLOW, first=3.0)

    @property
    def name(self) -> str:
        return self.identity.node

    @property
    def state(self) -> str:
        """online, draining, offline, or unknown as long as it said nothing, or when it says nothing any more."""
        if self.static:
            return self.health.state if self.health is not None else "online"
        if self._status is None:
            return "unknown"
        return "unknown" if self.quiet and self._status.state == "online" else self._status.state

    @property
    def doubtful(self) -> bool:
        """It should be there, and nobody knows how it is: not probed yet, or quiet. It is asked, at a charge."""
        return self.state == "unknown" and (self.static or self._status is not None)

    @property
    def heard_s(self) -> float:
        """When it last said, or answered, something."""
        return max(self._status_s, self._told_s, self.learned_s)

    @property
    def epoch(self) -> int:
        return self._status.epoch if self._status is not None else 0

    def version(self, model: str) -> str:
        """Of the bundle that answers for it; "" where the node does not tell."""
        return self.models.get(model, "").rpartition("@")[2]

    def slow_ms(self, expected_ms: float) -> float:
        """19 of 20 answers that were expected so came within that time."""
        return self._slow.value * expected_ms

    def put_status(self, status: Status, now_s: float) -> None:
        was, self._status, self._status_s, self.quiet = self.state, status, now_s, False
        if not self.static:
            self.capabilities = frozenset(status.capabilities)
        self._restate(was, now_s)

    def put_quiet(self, quiet: bool, now_s: float) -> None:
        was, self.quiet = self.state, quiet
        self._restate(was, now_s)

    def put_probe(self, event: Probed, now_s: float, *, rtt_ms: float | None = None) -> None:
        """What a probe has found, and the round trip where it tells one."""
        if self.health is None:
            return
        was = self.state
        self.health.on(event)
        if rtt_ms is not None:
            self.rtt_ms.measure(rtt_ms)
            self.settle(now_s)
        self._restate(was, now_s)

    def report(self, reported: Reported) -> None:
        self.models = {model: told.bundle for model, told in reported.models.items() if told.serving}

    def reserve(self, now_s: float) -> None:
        self.in_flight += 1
        self._foresee()
        if self.circuit.state != "closed":
            self._turn("started", now_s)

    def release(self, ending: Ending, now_s: float) -> None:
        self.in_flight -= 1
        self._foresee()
        if ending == "succeeded" and self.well:
            return
        if ending != "abandoned":
            self.failed_s = now_s if ending == "failed" else None
            self._failures.measure(1.0 if ending == "failed" else 0.0, now_s)
        self._turn(ending, now_s)
        if ending != "abandoned":
            self.well = self.circuit.failing < _NEVER and self.failing(now_s) < _NEVER
            self.settle(now_s)

    def note_answer(self, answer: Answer, now_s: float, *, sent_bytes: int = 0, expected_ms: float = 0.0) -> None:
        """Learns from one answer, still counted in `in_flight`: the distance it crossed and the load it reports."""
        told = answer.headers
        total_ms = parse_server_timing(told.get(headers.SERVER_TIMING)).get(TOTAL)
        load = told.get(headers.LOAD, "")
        self.learn(answer.hop_ms, total_ms, load, now_s, sent_bytes + answer.size, expected_ms)

    def may_learn(self, now_s: float) -> bool:
        """Of very many answers some teach as much as all."""
        return now_s >= self.learned_s + LEARN_S

    def learn(
        self, hop_ms: float, total_ms: float | None, load: str, now_s: float, size_bytes: int, expected_ms: float
    ) -> None:
        """From an answer that came after `hop_ms`, of which the node says that it took `total_ms`."""
        self.learned_s = now_s
        if self.quiet:
            self.put_quiet(False, now_s)
        if total_ms is not None:
            self._note_way(max(0.0, hop_ms - total_ms), size_bytes)
            self.quick_last = total_ms < self.service_ms / 2
        figures = parse_load(load)
        if figures:
            self._note_load(figures.get("in_flight", 0.0), figures.get("service_ms", 0.0), now_s)
        self.limit.observe(hop_ms / 1000.0, self.in_flight, now_s)
        self.most = self.limit.limit
        if expected_ms:
            self._margin.measure(hop_ms / expected_ms)
            self.sure = self._margin.value
            self._slow.measure(hop_ms / expected_ms)
        self.settle(now_s)

    def settle(self, now_s: float) -> None:
        """T = rtt + service * max(own in flight + others' in flight + 1 - drained, 1) + charge, as of `now_s`."""
        rtt_ms = self.rtt_ms.value()
        self.charge_ms = FAILURE_MS * self.failing(now_s) + self.doubt_ms + self.cost_ms
        self.each_ms = self.pace_ms(now_s)
        service_ms = self._service(now_s)
        self.idle_ms = rtt_ms + service_ms
        self.hoped_ms = rtt_ms + min(service_ms, self.middle_ms)
        self.least_ms = rtt_ms + self.each_ms + self.charge_ms
        self.still_ms = self.least_ms + self.each_ms * self.others_in_flight(now_s) - DRAINED * rtt_ms
        self._foresee()

    def _foresee(self) -> None:
        """Whenever something changes here, not for every node with every pick."""
        ms = self.still_ms + self.each_ms * self.in_flight
        self.next_ms = ms if ms > self.least_ms else self.least_ms

    def pace_ms(self, now_s: float) -> float:
        """What each request there adds: more for a node that is just back."""
        service_ms = self._service(now_s)
        if self.since_s is None:
            return service_ms
        share = max(SLOW_START, min(1.0, (now_s - self.since_s) / SLOW_START_S))
        return service_ms / share

    @property
    def doubt_ms(self) -> float:
        return DOUBT_MS if self.doubtful else 0.0

    def transfer_ms(self, size_bytes: int) -> float:
        """What so many bytes take beyond the distance."""
        return self.transfer_ms_per_mb.value() * size_bytes / 1e6

    def note_load(self, load: Load, now_s: float) -> None:
        if self.quiet:
            self.put_quiet(False, now_s)
        self._note_load(load.in_flight, load.service_ms, now_s)
        self.settle(now_s)

    def others_in_flight(self, now_s: float) -> float:
        """Requests that others than this router have there: as last told, halved every second since."""
        return self._others.value(now_s)

    def failing(self, now_s: float) -> float:
        """The recent share of failures, 0..1."""
        return self._failures.value(now_s)

    def _service(self, now_s: float) -> float:
        """What one request takes there, as last told; the usual where nothing was, or not for long."""
        if not self.service_ms:
            return self.usual_ms
        stale_s = now_s - self._service_told_s - FRESH_S
        if stale_s <= 0.0:
            return self.service_ms
        return self.usual_ms + (self.service_ms - self.usual_ms) * float(0.5 ** (stale_s / FRESH_S))

    def _restate(self, was: str, now_s: float) -> None:
        """After what may have changed its state. Who comes back from being away gets its share little by little."""
        if self.state != was:
            if self.state == "online" and was != "unknown":
                self.since_s = now_s
            self._changed()

    def _turn(self, event: Event, now_s: float) -> None:
        was = self.circuit.state
        self.circuit.on(event, now_s)
        if self.circuit.state != was:
            if self.circuit.state == "closed":
                self.since_s = now_s
                self._failures.replace(0.0, now_s)
            self._changed()

    def _note_way(self, way_ms: float, size_bytes: int) -> None:
        """What little bodies take is distance; what large ones take beyond that is bandwidth."""
        beyond_ms = way_ms - self.rtt_ms.value()
        if size_bytes < LARGE_BYTES or beyond_ms < 0:
            self.rtt_ms.measure(way_ms)
        else:
            self.transfer_ms_per_mb.measure(beyond_ms / size_bytes * 1e6)

    def _note_load(self, in_flight: float, service_ms: float, now_s: float) -> None:
        self._note_others(max(0.0, in_flight - self.in_flight), now_s)
        if service_ms > 0:
            self._note_service(service_ms)
            self._service_told_s = now_s

    def _note_others(self, told: float, now_s: float) -> None:
        """A mean over the last words, since each is of one moment only; alone where it is the first for a second."""
        if now_s - self._told_s < _LOAD_HALF_LIFE_S:
            self._others.measure(told, now_s)
        else:
            self._others.replace(told, now_s)
        self._told_s = now_s

    def _note_service(self, told_ms: float) -> None:
        """What a node tells is the mean of its last few requests: noise, but where it is half or twice what it was."""
        known_ms = self.service_ms
        steady = known_ms / _JUMP < told_ms < known_ms * _JUMP
        self.service_ms = known_ms + _SMOOTHED * (told_ms - known_ms) if steady else told_ms


def parse_load(value: str | None) -> dict[str, float]:
    """`Foothill-Load` as numbers; entries out of form are dropped, since load is a hint."""
    figures: dict[str, float] = {}
    for entry in (value or "")[:256].split(";"):
        name, _, number = entry.partition("=")
        try:
            figure = float(number)
        except ValueError:
            continue
        if 0.0 <= figure <= _MOST_LOAD:
            figures[name.strip()] = figure
    return figures
