"""The story of one proxied request: deadline, pick, node, settle, answer; and who is asked when a node fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from contracts import headers
from contracts.budgets import RetryBudget
from contracts.circuits import blames
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Terms
from router.fields import Field, Fields, Picked
from router.metrics import RouterMetrics
from router.node import Ending
from router.nodes import Nodes
from runtime.links.escalation.holder import CLOUD_FAILED, Holder, Settled
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable

log = logging.getLogger(__name__)

MAX_NODES = 3
NO_EDGE, EDGE_BUSY = "no-edge", "edge-busy"
BUSY_RETRY_S = 1.0
REFUSED = "refused"
_EXPECTED_FACTOR = 3.0
_EXPECTED_SLACK_MS = 100.0
_CLOUD_FIRST_SHARE = 2 / 3


class Call(msgspec.Struct, frozen=True):
    """One request as the router sends it on: `request` carries its id and the router's mark."""

    request: Request
    terms: Terms
    deadline: Deadline
    model: str


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

    Once the retry budget has refused, `spent` ends all tries: it is asked once for a failure.
    """

    def __init__(self) -> None:
        self.tried: set[str] = set()
        self.failure: Answer | FoothillError | None = None
        self.asked_cloud = False
        self.spent = False
        self.route_ms = 0.0
        self.retry_ms = 0.0

    def fail(self, failure: Answer | FoothillError) -> None:
        """A 404 is worth less than any later failure: the model may well exist where nobody could answer."""
        if self.failure is None or (isinstance(self.failure, Answer) and self.failure.status == 404):
            self.failure = failure

    def close(self, settled: Settled) -> Settled:
        """Puts what the routing cost in front of the phases."""
        own = {"route": self.route_ms} | ({"retry": self.retry_ms} if self.failure is not None else {})
        return msgspec.structs.replace(settled, phases={**own, **settled.phases})


class Proxy:
    """Answers requests through edge nodes and the cloud. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        *,
        nodes: Nodes,
        fields: Fields,
        holder: Holder,
        upstreams: Upstreams,
        budget: RetryBudget,
        metrics: RouterMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._nodes = nodes
        self._fields = fields
        self._holder = holder
        self._upstreams = upstreams
        self._budget = budget
        self._metrics = metrics
        self._clock = clock
        self._unmarked: set[str] = set()

    async def answer(self, call: Call) -> Settled:
        """The answer for the caller: a settled success, or an upstream's refusal with its own status.

        Raises FoothillError when no upstream could answer.
        """
        trail = Trail()
        self._budget.deposit(self._clock())
        if call.terms.escalation == "always" and self._holder.may_ask_cloud(call.terms):
            return trail.close(await self._cloud_first(call, trail))
        return trail.close(await self._edge_first(call, trail))

    async def go_on(
        self,
        call: Call,
        trail: Trail,
        first: Answer | FoothillError | None,
        sent_s: float,
        *,
        drawn: bool | None = None,
    ) -> Settled:
        """As `answer`, for a request that was sent to a node at `sent_s`, and what came of it: `first`, None where it
        went nowhere. `drawn` as for `Holder.settle`."""
        if isinstance(first, Answer) and judge(first.status).final:
            return trail.close(await self._settle(call, first, drawn=drawn))
        if first is not None:
            trail.fail(first)
            trail.retry_ms += self._since(sent_s)
        return trail.close(await self._edge_first(call, trail))

    def share_ms(self, expected_ms: float, deadline: Deadline, now_s: float, *, owed: bool = False) -> float:
        """What one node may take of a deadline that needs `expected_ms`.

        Half of what is left, so that a node that stalls leaves time for another; more where the node needs more,
        unless some of it is `owed` to the cloud.
        """
        left_ms = deadline.left_ms(now_s)
        needed_ms = 0.0 if owed else _EXPECTED_FACTOR * expected_ms + _EXPECTED_SLACK_MS
        return min(left_ms, max(left_ms / 2, needed_ms))

    async def _edge_first(self, call: Call, trail: Trail) -> Settled:
        edge = await self._ask_nodes(call, trail)
        if edge is None:
            return await self._without_nodes(call, trail)
        return await self._settle(call, edge)

    async def _cloud_first(self, call: Call, trail: Trail) -> Settled:
        """An edge answer would be thrown away, so the cloud comes first; it leaves the nodes some of the time."""
        now_s = self._clock()
        early = Deadline(now_s + _CLOUD_FIRST_SHARE * call.deadline.left_s(now_s))
        settled = await self._ask_cloud(call, trail, early, reason="asked-always", certified=True)
        if settled is not None:
            return settled
        edge = await self._ask_nodes(call, trail)
        if edge is None:
            return _give_up(trail)
        if edge.status >= 400:
            return _refused(edge)
        return self._holder.keep(call.request, edge, reason=CLOUD_FAILED, degraded=True)

    async def _without_nodes(self, call: Call, trail: Trail) -> Settled:
        """No node answered: the cloud does, else nodes that were left alone because they kept failing."""
        if trail.failure is not None and not self._may_retry(trail):
            return _give_up(trail)
        busy = trail.failure is None and self._busy(call)
        if self._holder.may_ask_cloud(Terms()):
            settled = await self._ask_cloud(call, trail, call.deadline, reason=EDGE_BUSY if busy else NO_EDGE)
            if settled is not None:
                return settled
        elif busy:
            raise _overloaded(call.model)
        elif trail.failure is None and not self._field(call).here(self._clock()):
            trail.fail(self._nodes.nowhere(call.model, call.terms.residency))
        edge = await self._ask_nodes(call, trail, last=True)
        return await self._settle(call, edge) if edge is not None else _give_up(trail)

    def _busy(self, call: Call) -> bool:
        """Whether nodes that nobody else asked could answer in time."""
        now_s = self._clock()
        return self._field(call).here(now_s, left_ms=call.deadline.left_ms(now_s))

    def _field(self, call: Call) -> Field:
        return self._fields.of(call.model, call.terms.residency)

    async def _ask_cloud(
        self, call: Call, trail: Trail, deadline: Deadline, *, reason: str, certified: bool = False
    ) -> Settled | None:
        started_s = self._clock()
        trail.asked_cloud = True
        try:
            settled = await self._holder.ask_cloud(
                call.request, call.terms, deadline, reason=reason, certified=certified
            )
        except FoothillError as error:
            trail.fail(error)
        else:
            if judge(settled.answer.status).final or settled.answer.status == 404:
                return settled
            trail.fail(settled.answer)
        trail.retry_ms += self._since(started_s)
        return None

    async def _settle(self, call: Call, edge: Answer, *, drawn: bool | None = None) -> Settled:
        if edge.status >= 400:
            return _refused(edge)
        settled = self._holder.settled_by(edge)
        if settled is None:
            return await self._holder.settle(
                call.request, edge, call.terms, call.deadline, model=call.model, drawn=drawn
            )
        if call.request.method == "POST":
            self._note_unmarked(edge.headers.get(headers.NODE, ""))
        return settled

    async def _ask_nodes(self, call: Call, trail: Trail, *, last: bool = False) -> Answer | None:
        """The first final answer of at most three nodes, or None; failures are on the trail."""
        for _ in range(MAX_NODES):
            picked = self._take(call, trail, last=last)
            if picked is None:
                return None
            answer = await self._ask(call, picked, trail)
            if answer is not None:
                return answer
        return None

    def _take(self, call: Call, trail: Trail, *, last: bool) -> Picked | None:
        """Picks and reserves in one step, so that no other request decides on the same figures."""
        started_s = self._clock()
        left_ms = call.deadline.left_ms(started_s)
        if left_ms <= 0:
            return None
        field, tried = self._field(call), trail.tried
        size_bytes = len(call.request.body)
        picked = (
            field.last(started_s, tried=tried)
            if last
            else field.pick(started_s, left_ms=left_ms, size_bytes=size_bytes, tried=tried)
        )
        if picked is None or (trail.failure is not None and not self._may_retry(trail)):
            return None
        tried.add(picked.node.name)
        picked.node.reserve(started_s)
        trail.route_ms += self._since(started_s)
        return picked

    async def _ask(self, call: Call, picked: Picked, trail: Trail) -> Answer | None:
        """Sends to a reserved node and releases it, whatever happens."""
        started_s, (node, expected_ms) = self._clock(), picked
        share = self._share(call, expected_ms, trail, started_s)
        ending: Ending = "abandoned"
        try:
            answer = await self._upstreams.send(node.identity.url, call.request, deadline=share, clock=self._clock)
            judgement = judge(answer.status)
            ending = judgement.ending
            if judgement.final:
                node.note_answer(answer, self._clock(), sent_bytes=len(call.request.body), expected_ms=expected_ms)
                return answer
            trail.fail(answer)
        except UpstreamUnreachable as error:
            ending = "failed"
            trail.fail(FoothillError("upstream_failed", f"Node {node.name} cannot be reached ({error.reason}). Retry."))
        except FoothillError as error:
            ending = "failed" if blames(share.left_ms(started_s), expected_ms) else "abandoned"
            trail.fail(error)
        finally:
            node.release(ending, self._clock())
        trail.retry_ms += self._since(started_s)
        return None

    def _share(self, call: Call, expected_ms: float, trail: Trail, now_s: float) -> Deadline:
        """One node's share of the deadline. The cloud is owed some of it where a node has failed, and it has not had
        its turn."""
        owed = trail.failure is not None and not trail.asked_cloud and self._holder.may_ask_cloud(call.terms)
        return Deadline.after(self.share_ms(expected_ms, call.deadline, now_s, owed=owed), now_s=now_s)

    def _may_retry(self, trail: Trail) -> bool:
        if trail.spent:
            return False
        allowed = self._budget.withdraw(self._clock())
        trail.spent = not allowed
        self._metrics.retry("tried" if allowed else "no-budget")
        return allowed

    def _note_unmarked(self, name: str) -> None:
        if name not in self._unmarked:
            self._unmarked.add(name)
            log.warning("node %s does not take this router's mark and settles by itself: check hop_key_file", name)

    def _since(self, started_s: float) -> float:
        return (self._clock() - started_s) * 1000.0


def _refused(answer: Answer) -> Settled:
    return Settled(answer, "edge", REFUSED, certified=False, degraded=False, phases={})


def _overloaded(model: str) -> FoothillError:
    return FoothillError(
        "overloaded",
        f"The nodes with model {model!r} have as many requests as they can answer in time. Retry later.",
        retry_after_s=BUSY_RETRY_S,
    )


def _give_up(trail: Trail) -> Settled:
    """Tells the first failure: the upstream's own words where it had any."""
    if isinstance(trail.failure, Answer):
        return _refused(trail.failure)
    raise trail.failure or FoothillError("deadline_exceeded", "The deadline passed before a node could be asked.")
