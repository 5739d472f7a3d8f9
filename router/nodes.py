"""The table of edge nodes: what the fleet signed of them, and what they say of themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from contracts.errors import FoothillError
from contracts.headers import Terms
from contracts.messages import Identity, Load, Reported, Status
from contracts.places import Place
from router.config import StaticNode
from router.health import Health
from router.node import Node
from router.selection import Query, of_version, within

MOST_EJECTED = 0.3
"""Of the nodes with one model; one may always be."""
QUIET_S = 15.0
"""Nodes tell their load every second, at QoS 0. Who is not heard for so long, while others are, may hang."""
_LOOKED_AT = 8
"""With each load that is heard so many nodes are looked at, in turn: of thousands never all at once."""


class Nodes:
    """All nodes by name. An identity comes first: what else is said of a name waits until the fleet has signed it.

    `version` grows with every change to who is there, has which models and can what, `pulse` also where a node comes,
    goes, or is left alone.
    """

    def __init__(
        self, router_place: Place | None, static: Iterable[StaticNode] = (), ms_per_cost_unit: float = 0.0
    ) -> None:
        self._router_place = router_place
        self._ms_per_cost_unit = ms_per_cost_unit
        self._nodes: dict[str, Node] = {}
        self._statuses: dict[str, Status] = {}
        self._reports: dict[str, Reported] = {}
        self._by_model: dict[str, list[Node]] = {}
        self._heard_s = self._hearing_s = -math.inf
        self._turns: Iterator[Node] = iter(())
        self.version = self.pulse = 0
        for told in static:
            self._put_static(told)

    def put_identity(self, identity: Identity) -> None:
        """Takes a verified identity; the highest sequence wins, and a node that moved is learned anew."""
        known = self._nodes.get(identity.node)
        if known is not None and identity.sequence < known.identity.sequence:
            return
        if known is not None and (known.identity.url, known.place) == (identity.url, Place(identity.lat, identity.lon)):
            known.identity = identity
            self._changed()
            return
        node = self._put(identity)
        if identity.node in self._statuses:
            node.put_status(self._statuses[identity.node], 0.0)
        if identity.node in self._reports:
            node.report(self._reports[identity.node])
        self._changed()

    def put_status(self, status: Status, now_s: float = 0.0) -> None:
        """The highest epoch wins, and within one epoch the last word."""
        known = self._statuses.get(status.node)
        if known is not None and status.epoch < known.epoch:
            return
        self._statuses[status.node] = status
        if status.node in self._nodes:
            node = self._nodes[status.node]
            before = node.capabilities
            node.put_status(status, now_s)
            if node.capabilities != before:
                self._changed()

    def put_reported(self, reported: Reported) -> None:
        known = self._reports.get(reported.node)
        if known is not None and reported.epoch < known.epoch:
            return
        self._reports[reported.node] = reported
        if reported.node in self._nodes:
            node = self._nodes[reported.node]
            before = node.models
            node.report(reported)
            if node.models != before:
                self._changed()

    def put_load(self, load: Load, now_s: float) -> None:
        node = self._nodes.get(load.node)
        if node is not None and load.epoch >= node.epoch:
            node.note_load(load, now_s)
        if now_s > self._heard_s + QUIET_S:
            self._hearing_s = now_s
        self._heard_s = now_s
        self._look_for_quiet(now_s)

    def get(self, name: str) -> Node | None:
        return self._nodes.get(name)

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

    def nowhere(self, model: str, terms: Terms, version: str = "") -> FoothillError:
        """What to answer when no node may have a request, and no cloud either: closed by its terms, or not there.

        A router that knows no node at all cannot tell whether anybody has the model.
        """
        if not self._nodes:
            return FoothillError(
                "unavailable", "This router knows no node yet, and no cloud_urls are configured. Try later."
            )
        inside = self._inside(model, terms.residency, version)
        able = Query(model, capabilities=terms.capabilities)
        if inside and not any(within(node, able) for node in inside):
            return FoothillError(
                "model_not_found",
                f"None of the nodes with model {model[:80]!r} that may have the request has all of: "
                f"{', '.join(terms.capabilities)}. Ask for less in Foothill-Capabilities.",
            )
        if terms.residency:
            return FoothillError(
                "residency_denied",
                f"Nothing inside {', '.join(terms.residency)} serves model {model!r} now. Widen Foothill-Residency, or "
                "try again when a node there is back.",
            )
        told = {node.version(model) for node in self.serving(model)}
        if version and told and not told & {"", version}:
            return FoothillError(
                "model_not_found",
                f"No node serves version {version[:80]!r} of model {model[:80]!r}, and no cloud_urls are configured. "
                f"Served now: {', '.join(sorted(told))}.",
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

    def _inside(self, model: str, residency: tuple[str, ...], version: str) -> list[Node]:
        """Those with the model that a claim and a version leave."""
        query = Query(model, residency)
        return [node for node in of_version(self.serving(model), model, version) if within(node, query)]

    def _look_for_quiet(self, now_s: float) -> None:
        """Stale means unknown, but where this router hears nobody it is its own ears that are bad."""
        before_s = now_s - QUIET_S
        looked_at = list(itertools.islice(self._turns, _LOOKED_AT))
        if len(looked_at) < _LOOKED_AT:
            self._turns = iter(self.all())
        for node in looked_at:
            quiet = max(node.heard_s, self._hearing_s) < before_s
            if quiet != node.quiet and not node.static:
                node.put_quiet(quiet, now_s)

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
        node = self._put(identity)
        node.static = True
        node.health = Health() if told.health_path else None
        node.cost, node.cost_ms = told.cost_per_request, told.cost_per_request * self._ms_per_cost_unit
        node.models = dict.fromkeys(told.models, "")
        node.capabilities = frozenset(told.capabilities)

    def _put(self, identity: Identity) -> Node:
        node = self._nodes[identity.node] = Node(identity, self._router_place, self._stirred)
        node.circuit.may_open = partial(self._may_eject, node)
        self._changed()
        return node

    def _may_eject(self, node: Node) -> bool:
        """Whether this one may be left alone too, of each group that has one of its models."""
        return all(_may_eject_of(self.serving(model)) for model in node.models)

    def _changed(self) -> None:
        self.version += 1
        self.pulse += 1
        self._by_model.clear()

    def _stirred(self) -> None:
        self.pulse += 1


def _may_eject_of(group: Sequence[Node]) -> bool:
    ejected = sum(node.circuit.state != "closed" for node in group)
    return ejected + 1 <= max(1.0, MOST_EJECTED * len(group))
