"""A fleet without a network: gives orders their sequences, and remembers what each node was last told."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.messages import ModelPhase, ModelReport
from fleet.rollouts.advance import advance, begin
from fleet.rollouts.events import Assign, Assigned, Event, Heard, Judged, Seen, Tick
from fleet.rollouts.plan import Gate, Plan, Policy
from fleet.rollouts.windows import Window

NEW, OLD, OTHER = ("sha256:" + letter * 64 for letter in "abc")
DEADLINE_S, SILENCE_S = 60.0, 120.0
PLAIN = Policy(healthy_deadline_s=DEADLINE_S)


def plan_of(
    *stages: str,
    policy: Policy = PLAIN,
    gate: int | None = None,
    previous: str = OLD,
    windows: dict[str, Window] | None = None,
) -> Plan:
    """Nodes are letters."""
    named = tuple(tuple(stage) for stage in stages)
    had = {name: previous for stage in named for name in stage}
    judging = Gate(gate, SILENCE_S) if gate is not None else None
    return Plan("r", "b@2", "m", NEW, named, had, policy, judging, windows or {})


class Fleet:
    """`told`: of each node the sequence and the digest of its last document; `orders`: all that was ever ordered."""

    def __init__(self, plan: Plan, off: Iterable[str] = (), at_s: float = 0.0) -> None:
        self.now_s = at_s
        self.sequence = 0
        self.told: dict[str, tuple[int, str]] = {}
        self.orders: list[Assign] = []
        names = {name for stage in plan.stages for name in stage}
        self.rollout, orders = begin(plan, names - {*off}, at_s)
        self._obey(orders)

    @property
    def phase(self) -> str:
        return self.rollout.head.phase

    def node(self, name: str) -> str:
        return self.rollout.nodes[name].phase

    def feed(self, event: Event) -> None:
        self._obey(advance(self.rollout, event))

    def hear(self, node: str, phase: ModelPhase, *, error: str = "", sequence: int | None = None) -> None:
        """What the node says of the document that it was last told, or of that with the number `sequence`."""
        number, digest = self.told[node]
        report = (
            ModelReport(digest, phase, serving=digest if phase == "active" else "", error=error) if digest else None
        )
        self.feed(Heard(node, number if sequence is None else sequence, report, self.now_s))

    def active(self, *nodes: str) -> None:
        for node in nodes:
            self.hear(node, "active")

    def seen(self, node: str, *, online: bool) -> None:
        self.feed(Seen(node, online, self.now_s))

    def judged(self, decision: str, reason: str = "") -> None:
        self.feed(Judged(decision, reason, self.now_s))  # type: ignore[arg-type]

    def tick(self, seconds: float) -> None:
        self.now_s += seconds
        self.feed(Tick(seconds, self.now_s))

    def has(self) -> dict[str, str]:
        """The digest each node was last told, as a letter."""
        return {name: digest[7] for name, (_, digest) in sorted(self.told.items()) if digest}

    def _obey(self, orders: list[Assign]) -> None:
        self.orders += orders
        for order in orders:
            self.sequence += 1
            self.told[order.node] = (self.sequence, order.digest)
            assert not advance(self.rollout, Assigned(order.node, self.sequence))
