"""The nodes around a place, out of very many: no caller is sent far away, so few need a closer look."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from contracts.places import Place
from router.node import Node
from router.nodes import Nodes
from router.selection import Query, within

NEAR = 256
_CELLS_PER_DEGREE = 4
"""Callers in one cell of a quarter of a degree, 28 km or less, have the same surroundings: GeoIP is no more exact."""
_MOST_CELLS = 1024
_MOST_GLOBES = 64


class Surroundings:
    """Of the nodes that have a model, lie inside a claim, and can what they have to."""

    def __init__(self, nodes: Nodes, rng: random.Random) -> None:
        self.nodes = nodes
        self._rng = rng
        self._version = -1
        self._globes: dict[tuple[str, tuple[str, ...], tuple[str, ...]], _Globe] = {}

    def near(self, query: Query, place: Place | None) -> Sequence[Node]:
        """The 256 nearest to a place; any 256 for nowhere; all where there are no more."""
        globe = self._globe(query)
        if len(globe.nodes) <= NEAR:
            return globe.nodes
        return globe.around(place) if place is not None else self._rng.sample(globe.nodes, NEAR)

    def _globe(self, query: Query) -> _Globe:
        if self._version != self.nodes.version or len(self._globes) >= _MOST_GLOBES:
            self._globes.clear()
            self._version = self.nodes.version
        key = (query.model, query.residency, query.capabilities)
        if key not in self._globes:
            serving = self.nodes.serving(query.model)
            self._globes[key] = _Globe([node for node in serving if within(node, query)])
        return self._globes[key]


class _Globe:
    """Nodes as points on a unit sphere: of two points the nearer to a third has the larger dot product with it."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._points = _points([node.place for node in nodes]) if len(nodes) > NEAR else np.zeros((0, 3))
        self._cells: OrderedDict[tuple[int, int], list[Node]] = OrderedDict()

    def around(self, place: Place) -> list[Node]:
        cell = (round(place.lat * _CELLS_PER_DEGREE), round(place.lon * _CELLS_PER_DEGREE))
        found = self._cells.get(cell)
        if found is None:
            found = self._cells[cell] = self._nearest(place)
            if len(self._cells) > _MOST_CELLS:
                self._cells.popitem(last=False)
        return found

    def _nearest(self, place: Place) -> list[Node]:
        closeness = self._points @ _points([place])[0]
        return [self.nodes[at] for at in np.argpartition(closeness, -NEAR)[-NEAR:]]


def _points(places: Sequence[Place]) -> npt.NDArray[np.float64]:
    """Shape (n, 3)."""
    angles = np.radians([(place.lat, place.lon) for place in places])
    lat, lon = angles[:, 0], angles[:, 1]
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
