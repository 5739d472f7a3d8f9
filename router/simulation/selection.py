"""Foothill's own selection as a policy: the table, the fields and the nodes of a router, on the simulator's clock."""

from __future__ import annotations

import random
from collections.abc import Set

from contracts.boards import Fingerprint
from contracts.messages import Identity, Load, ModelReport, Reported, Status
from router.fields import Fields
from router.nodes import Nodes
from router.simulation.policies import Choice
from router.simulation.world import World
from runtime.links.http.upstream import Answer

_MODEL = "simulated"
_FINGERPRINT = Fingerprint("cpu-x86", "x86_64", "linux", 2, 1 << 30, "cpu", "onnxruntime")


def node_name(number: int) -> str:
    return f"n{number}"


class Selection:
    """`router.fields` over a table of its own, as `router/proxy.py` uses it."""

    def __init__(self, world: World, router: int, known: Set[int], rng: random.Random) -> None:
        self._world = world
        self._table = Nodes(world.routers[router].place)
        for number in sorted(known):
            self.joined(number, 0.0)
        self._numbers = {node_name(number): number for number in range(len(world.nodes))}
        self._field = Fields(self._table, rng).of(_MODEL, ())

    def pick(self, now_s: float, tried: Set[int]) -> Choice | None:
        names = frozenset(map(node_name, tried))
        picked = self._field.pick(now_s, tried=names) or self._field.last(now_s, tried=names)
        return Choice(self._numbers[picked.node.name], picked.expected_ms) if picked is not None else None

    def sent(self, node: int, now_s: float) -> None:
        self._nodes[node].reserve(now_s)

    def answered(self, node: int, answer: Answer, expected_ms: float, now_s: float) -> None:
        one = self._nodes[node]
        one.note_answer(answer, now_s, expected_ms=expected_ms)
        one.release("succeeded", now_s)

    def failed(self, node: int, now_s: float) -> None:
        self._nodes[node].release("failed", now_s)

    def heard(self, node: int, load: Load, now_s: float) -> None:
        self._table.put_load(load, now_s)

    def joined(self, node: int, now_s: float) -> None:
        region, name = self._world.nodes[node], node_name(node)
        place = region.place
        self._table.put_identity(
            Identity(name, region.name, place.lat, place.lon, f"http://{name}:8100", "public", "", "cpu-x86", 1)
        )
        model = ModelReport("sha256:x", "active", serving="sha256:x", bundle="simulated@1")
        self._table.put_reported(Reported(name, 1, 1, {_MODEL: model}, _FINGERPRINT, 0.0))
        self._table.put_status(Status(name, 1, "online"), now_s)
        self._nodes = {int(each.name[1:]): each for each in self._table.all()}
