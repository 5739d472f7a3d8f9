"""The table of edge nodes: what the fleet signed of them, what they say of themselves, and how they have been doing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from contracts import headers
from contracts.circuits import Circuit
from contracts.errors import FoothillError
from contracts.messages import Identity, Load, Reported, Status
from contracts.places import Place, prior_rtt_ms
from contracts.timing import TOTAL, parse_server_timing
from router.config import StaticNode
from runtime.links.escalation.estimates import Fading, Shrunk
from runtime.links.http.upstream import Answer

Ending = Literal["succeeded", "failed", "abandoned"]

_LOAD_HALF_LIFE_S = 1.0
_FAILURE_HALF_LIFE_S = 10.0
_MOST_LOAD = 1e8


class Node:
    """One edge node. Only `reserve` and `release` change what requests share, and neither awaits."""

    def __init__(self, identity: Identity, router_place: Place | None) -> None:
        self.identity = identity
        self.place = Place(identity.lat, identity.lon)
        self.status: Status | None = None
        self.static = False
        self.models: Mapping[str, str] = {}
        """Logical models that answer here now, with the bundle (name@version) where the node tells it."""
        self.circuit = Circuit()
        self.in_flight = 0
        self.rtt_ms = Shrunk(prior_rtt_ms(router_place, self.place) if router_place else 0.0)
        self.service_ms = 0.0
        self._others = Fading(half_life_s=_LOAD_HALF_LIFE_S)
        self._failures = Fading(half_life_s=_FAILURE_HALF_LIFE_S)

    @property
    def name(self) -> str:
        return self.identity.node

    @property
    def state(self) -> str:
        """online, draining, offline, or unknown as long as it said nothing. Static nodes are online."""
        if self.static:
            return "online"
        return self.status.state if self.status is not None else "unknown"

    def report(self, reported: Reported) -> None:
        self.models = {model: told.bundle for model, told in reported.models.items() if told.serving}

    def reserve(self, now_s: float) -> None:
        self.in_flight += 1
        self.circuit.on("started", now_s)

    def release(self, ending: Ending, now_s: float) -> None:
        self.in_flight -= 1
        self.circuit.on(ending, now_s)
        if ending != "abandoned":
            self._failures.measure(1.0 if ending == "failed" else 0.0, now_s)

    def note_answer(self, answer: Answer, now_s: float) -> None:
        """Learns from one answer, still counted in `in_flight`: the distance it crossed and the load it reports."""
        total_ms = parse_server_timing(answer.headers.get(headers.SERVER_TIMING)).get(TOTAL)
        if total_ms is not None:
            self.rtt_ms.measure(max(0.0, answer.hop_ms - total_ms))
        figures = parse_load(answer.headers.get(headers.LOAD))
        if figures:
            self._note_load(figures.get("in_flight", 0.0), figures.get("service_ms", 0.0), now_s)

    def note_load(self, load: Load, now_s: float) -> None:
        self._note_load(load.in_flight, load.service_ms, now_s)

    def others_in_flight(self, now_s: float) -> float:
        """Requests that others than this router have there: as last told, halved every second since."""
        return self._others.value(now_s)

    def failing(self, now_s: float) -> float:
        """The recent share of failures, 0..1."""
        return self._failures.value(now_s)

    def _note_load(self, in_flight: float, service_ms: float, now_s: float) -> None:
        self._others.replace(max(0.0, in_flight - self.in_flight), now_s)
        if service_ms > 0:
            self.service_ms = service_ms


class Nodes:
    """All nodes by name. An identity comes first: what else is said of a name waits until the fleet has signed it."""

    def __init__(self, router_place: Place | None, static: Iterable[StaticNode] = ()) -> None:
        self._router_place = router_place
        self._nodes: dict[str, Node] = {}
        self._statuses: dict[str, Status] = {}
        self._reports: dict[str, Reported] = {}
        self._by_model: dict[str, list[Node]] = {}
        for told in static:
            self._put_static(told)

    def put_identity(self, identity: Identity) -> None:
        """Takes a verified identity; the highest sequence wins, and a node that moved is learned anew."""
        known = self._nodes.get(identity.node)
        if known is not None and identity.sequence < known.identity.sequence:
            return
        if known is not None and (known.identity.url, known.place) == (identity.url, Place(identity.lat, identity.lon)):
            known.identity = identity
            return
        node = Node(identity, self._router_place)
        node.status = self._statuses.get(identity.node)
        if identity.node in self._reports:
            node.report(self._reports[identity.node])
        self._nodes[identity.node] = node
        self._by_model.clear()

    def put_status(self, status: Status) -> None:
        """The highest epoch wins, and within one epoch the last word."""
        known = self._statuses.get(status.node)
        if known is not None and status.epoch < known.epoch:
            return
        self._statuses[status.node] = status
        if status.node in self._nodes:
            self._nodes[status.node].status = status

    def put_reported(self, reported: Reported) -> None:
        known = self._reports.get(reported.node)
        if known is not None and reported.epoch < known.epoch:
            return
        self._reports[reported.node] = reported
        if reported.node in self._nodes:
            self._nodes[reported.node].report(reported)
            self._by_model.clear()

    def put_load(self, load: Load, now_s: float) -> None:
        node = self._nodes.get(load.node)
        if node is not None and (node.status is None or load.epoch >= node.status.epoch):
            node.note_load(load, now_s)

    def all(self) -> list[Node]:
        return list(self._nodes.values())

    def unidentified(self) -> list[str]:
        """Names that spoke without an identity that this router could verify."""
        return sorted((self._statuses.keys() | self._reports.keys()) - self._nodes.keys())

    def serving(self, model: str) -> list[Node]:
        """Nodes that say they serve `model`, whatever their state."""
        if not self._by_model:
            self._index()
        return self._by_model.get(model, [])

    def models(self) -> Mapping[str, list[Node]]:
        if not self._by_model:
            self._index()
        return self._by_model

    def nowhere(self, model: str, residency: Sequence[str]) -> FoothillError:
        """What to answer when no node may have a request, and no cloud either: closed by `residency`, or not there.

        A router that knows no node at all cannot tell whether anybody has the model.
        """
        if not self._nodes:
            return FoothillError(
                "unavailable", "This router knows no node yet, and no cloud_urls are configured. Try later."
            )
        if residency:
            return FoothillError(
                "residency_denied",
                f"Nothing inside {', '.join(residency)} serves model {model!r} now. Widen Foothill-Residency, or "
                "try again when a node there is back.",
            )
        if not self.serving(model):
            known = ", ".join(sorted(self.models())) or "none"
            return FoothillError(
                "model_not_found",
                f"No node serves model {model[:80]!r}, and no cloud_urls are configured. Served now: {known}.",
            )
        return FoothillError(
            "unavailable", f"All nodes with model {model!r} are away, and there is no cloud. Try later."
        )

    def _index(self) -> None:
        for node in self._nodes.values():
            for model in node.models:
                self._by_model.setdefault(model, []).append(node)

    def _put_static(self, told: StaticNode) -> None:
        identity = Identity(
            node=told.name,
            region=told.region,
            lat=told.lat,
            lon=told.lon,
            url=told.url,
            reach="public",
            public_key="",
            target="",
            sequence=0,
        )
        node = Node(identity, self._router_place)
        node.static = True
        node.models = dict.fromkeys(told.models, "")
        self._nodes[told.name] = node


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
