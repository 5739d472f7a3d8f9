"""Asking nodes for an answer: which one, for how long, what it teaches, and who is asked when it fails or is slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Literal, NamedTuple

import msgspec

from contracts.budgets import RetryBudget
from contracts.circuits import blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.budgets import Purse
from router.fields import Field, Fields
from router.metrics import RouterMetrics
from router.node import Ending, Node
from router.selection import Picked
from router.shares import share_ms
from runtime.links.access.grants import UNLIMITED, Allowance
from runtime.links.escalation.holder import Settled
from runtime.links.http.accounts import Hop
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable

MAX_NODES = 3
ASK_EDGE, ASK_CLOUD, ESCALATE = "ask-edge", "ask-cloud", "escalate"
"""What hops are for."""
HEDGED_SHARE = 0.02
Resort = Literal["best", "ejected", "last"]
"""The best node; one that is left alone and should not be; any, where nothing better is left."""
_HEDGES_AT_LEAST = 2
_HEDGE_WINDOW_S = 10.0


class Call(msgspec.Struct, frozen=True):
    """One request as the router sends it on: `request` carries its id and the router's mark. `version` "" is any."""

    request: Request
    terms: Terms
    deadline: Deadline
    model: str
    tenant: str = ""
    allowance: Allowance = UNLIMITED
    version: str = ""

    @property
    def spools(self) -> bool:
        """Whether a large answer may lie on disk: nobody has to look into it."""
        return self.request.path.endswith("/infer")


class Judgement(NamedTuple):
    """What an upstream's status means: whether its caller gets the answer, and what it says of the upstream."""

    final: bool
    ending: Ending


def judge(status: int) -> Judgement:
    """A success or a refusal is final. 404 is not: a table lags behind a node that just changed its models."""
    if status == 404 or status == 429:
        return Judgement(False, "abandoned")
    if 200 <= status < 300 or 400 <= status < 500:
        return Judgement(True, "succeeded")
    return Judgement(False, "failed")


class Trail:
    """What one request has tried so far; `failure` is the first that a caller could be told.

    Once the retry budget has refused, `spent` ends all tries: it is asked once for a failure. `pauses` counts how often
    all upstreams had failed, and were given time. `hops` are all upstreams that were asked, and `answered` is the node
    whose answer it is.
    """

    def __init__(self, hops: list[Hop] | None = None) -> None:
        self.tried: set[str] = set()
        self.hops: list[Hop] = [] if hops is None else hops
        self.answered: Node | None = None
        self.failure: Answer | FoothillError | None = None
        self.asked_cloud = False
        self.spent = False
        self.pauses = 0
        self.route_ms = 0.0
        self.retry_ms = 0.0

    def fail(self, failure: Answer | FoothillError) -> None:
        """A 404 is worth less than any later failure: the model may well exist where nobody could answer."""
        if self.failure is None or (isinstance(self.failure, Answer) and self.failure.status == 404):
            self.failure = failure

    def close(self, settled: Settled) -> Settled:
        """Puts what the routing cost in front of the phases."""
        own = {"route": self.route_ms} | ({"retry": self.retry_ms} if self.failure is not None else {})
        edge = self.answered if settled.tier == "edge" else None
        region = edge.identity.region if edge is not None else settled.region
        return msgspec.structs.replace(settled, phases={**own, **settled.phases}, region=region)


class Tries:
    """Asks nodes. `owed`: whether the cloud is to have its turn under these terms. `clock` is monotonic, in seconds.

    A request with an idempotency key goes to a second node too when the first takes longer than 19 of 20 of its answers
    do, for one request in fifty (Dean and Barroso 2013, "The Tail at Scale", hedged requests). Who answers second is
    cancelled on the wire. Retries and hedges have one budget.
    """

    def __init__(
        self,
        *,
        fields: Fields,
        upstreams: Upstreams,
        budget: RetryBudget,
        metrics: RouterMetrics,
        purse: Purse,
        owed: Callable[[Terms], bool],
        clock: Callable[[], float],
    ) -> None:
        self._fields = fields
        self._upstreams = upstreams
        self._budget = budget
        self._hedged_s: deque[float] = deque()
        self._metrics = metrics
        self._purse = purse
        self._owed = owed
        self._clock = clock

    def begin(self, now_s: float) -> None:
        """Counts one first try."""
        self._budget.deposit(now_s)

    def field(self, call: Call) -> Field:
        terms = call.terms
        return self._fields.of(call.model, terms.residency, call.version, terms.priority, terms.capabilities)

    def shed(self, call: Call) -> None:
        """Counts one that is refused for want of room."""
        self._metrics.shed(call.terms.priority)

    async def ask(self, call: Call, trail: Trail, *, resort: Resort = "best") -> Answer | None:
        """The first final answer of at most three nodes, or None; failures are on the trail."""
        for _ in range(MAX_NODES):
            picked = self._take(call, trail, resort)
            if picked is None:
                return None
            ask = self._ask_hedged if call.terms.idempotency_key else self._ask
            answer = await ask(call, picked, trail)
            if answer is not None:
                return answer
        return None

    def may_retry(self, trail: Trail) -> bool:
        if trail.spent:
            return False
        allowed = self._budget.withdraw(self._clock())
        trail.spent = not allowed
        self._metrics.retry("tried" if allowed else "no-budget")
        return allowed

    def _take(self, call: Call, trail: Trail, resort: Resort) -> Picked | None:
        """Picks and reserves in one step, so that no other request decides on the same figures."""
        started_s = self._clock()
        picked = self._picked(call, trail, started_s, resort)
        if picked is None or (trail.failure is not None and not self.may_retry(trail)):
            return None
        self._reserve(picked, trail, started_s)
        trail.route_ms += self._since(started_s)
        return picked

    def _best(self, call: Call, trail: Trail, now_s: float) -> Picked | None:
        left_ms, size_bytes = call.deadline.left_ms(now_s), call.request.size
        if left_ms <= 0:
            return None
        return self.field(call).pick(now_s, left_ms=left_ms, size_bytes=size_bytes, tried=trail.tried)

    def _picked(self, call: Call, trail: Trail, now_s: float, resort: Resort) -> Picked | None:
        if resort == "best":
            return self._best(call, trail, now_s)
        if call.deadline.left_ms(now_s) <= 0:
            return None
        field = self.field(call)
        return field.ejected(now_s, tried=trail.tried) if resort == "ejected" else field.last(now_s, tried=trail.tried)

    @staticmethod
    def _reserve(picked: Picked, trail: Trail, now_s: float) -> None:
        trail.tried.add(picked.node.name)
        picked.node.reserve(now_s)

    async def _ask_hedged(self, call: Call, picked: Picked, trail: Trail) -> Answer | None:
        asked = [asyncio.create_task(self._ask(call, picked, trail))]
        try:
            await asyncio.wait(asked, timeout=picked.node.slow_ms(picked.expected_ms) / 1000.0)
            other = self._hedge(call, trail) if not asked[0].done() else None
            if other is not None:
                asked.append(asyncio.create_task(self._ask(call, other, trail)))
            at, answer = await _first_answer(asked)
            if answer is not None:  # the other may have answered at the same moment
                trail.answered = other.node if at == 1 and other is not None else picked.node
            if other is not None:
                self._metrics.hedge("won" if at == 1 else "lost")
            return answer
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)

    def _hedge(self, call: Call, trail: Trail) -> Picked | None:
        """A second node for a request whose first is slow."""
        now_s = self._clock()
        picked = self._best(call, trail, now_s)
        if picked is None:
            return None
        if not (self._may_hedge(now_s) and self._budget.withdraw(now_s)):
            self._metrics.hedge("no-budget")
            return None
        self._hedged_s.append(now_s)
        self._reserve(picked, trail, now_s)
        return picked

    def _may_hedge(self, now_s: float) -> bool:
        while self._hedged_s and self._hedged_s[0] <= now_s - _HEDGE_WINDOW_S:
            self._hedged_s.popleft()
        return len(self._hedged_s) < _HEDGES_AT_LEAST + HEDGED_SHARE * self._budget.seen(now_s)

    async def _ask(self, call: Call, picked: Picked, trail: Trail) -> Answer | None:
        """Sends to a reserved node and releases it, whatever happens."""
        started_s, node, expected_ms = self._clock(), picked.node, picked.expected_ms
        share = self._share(call, picked, trail, started_s)
        ending: Ending = "abandoned"
        status, failed = 0, "abandoned"
        try:
            answer = await self._upstreams.send(
                node.identity.url,
                call.request,
                deadline=share,
                clock=self._clock,
                spools=call.spools,
                may_retry=partial(self.may_retry, trail),
            )
            judgement, status, failed = judge(answer.status), answer.status, ""
            ending = judgement.ending
            if judgement.final:
                trail.answered = node
                node.note_answer(answer, self._clock(), sent_bytes=call.request.size, expected_ms=expected_ms)
                self._purse.spend(call.tenant, call.allowance, node.cost)
                return answer
            trail.fail(answer)
        except UpstreamUnreachable as error:
            ending, failed = "failed", "upstream_failed"
            trail.fail(FoothillError("upstream_failed", f"Node {node.name} cannot be reached ({error.reason}). Retry."))
        except FoothillError as error:
            failed = error.code
            if blames(share.left_ms(started_s), expected_ms):
                ending = "failed"
                self._upstreams.doubt(node.identity.url)
            trail.fail(error)
        finally:
            ended_s = self._clock()
            node.release(ending, ended_s)
            trail.hops.append(Hop(ASK_EDGE, node.name, node.identity.region, started_s, ended_s, status, failed))
        trail.retry_ms += self._since(started_s)
        return None

    def _share(self, call: Call, picked: Picked, trail: Trail, now_s: float) -> Deadline:
        """One node's share of the deadline. The cloud is owed some of it where a node has failed, and it has not had
        its turn."""
        owed = trail.failure is not None and not trail.asked_cloud and self._owed(call.terms)
        left_ms, well = call.deadline.left_ms(now_s), picked.node.well
        return Deadline.after(share_ms(picked.expected_ms, left_ms, well=well, owed=owed), now_s=now_s)

    def _since(self, started_s: float) -> float:
        return (self._clock() - started_s) * 1000.0


async def _first_answer(asked: Collection[asyncio.Task[Answer | None]]) -> tuple[int, Answer | None]:
    """The first answer, and which of the tasks it comes from; None when all have ended without one."""
    pending = set(asked)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for at, task in enumerate(asked):
            if task in done and (answer := task.result()) is not None:
                return at, answer
    return 0, None
