"""The story of one proxied request: deadline, nodes, settle, answer; and who is asked when no node answers."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.headers import Priority, Terms
from router.budgets import Purse
from router.nodes import Nodes
from router.tries import ASK_CLOUD, ESCALATE, Call, Trail, Tries, judge
from runtime.links.escalation.holder import CLOUD_FAILED, Holder, Settled, evidence_of
from runtime.links.http.accounts import Hop
from runtime.links.http.upstream import Answer

log = logging.getLogger(__name__)

NO_EDGE, EDGE_BUSY = "no-edge", "edge-busy"
REFUSED = "refused"
BUSY_RETRY_S: Mapping[Priority, float] = {"high": 1.0, "normal": 1.0, "low": 4.0}
"""What matters least comes back last, so that its second tries do not take what the others need."""
MAX_PAUSES, FIRST_PAUSE_S = 2, 0.1
_CLOUD_FIRST_SHARE = 2 / 3
_SECONDS = re.compile(r"[0-9]{1,6}")


class Proxy:
    """Answers requests through edge nodes and the cloud, of which one request costs `cloud_cost`. `promise` as
    `router.hub.Hub.promise`; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        *,
        nodes: Nodes,
        holder: Holder,
        tries: Tries,
        promise: Callable[[Call], Awaitable[bool]],
        purse: Purse,
        rng: random.Random,
        clock: Callable[[], float],
        cloud_cost: float = 0.0,
    ) -> None:
        self._purse = purse
        self._cloud_cost = cloud_cost
        self._nodes = nodes
        self._holder = holder
        self._tries = tries
        self._promise = promise
        self._rng = rng
        self._clock = clock
        self._unmarked: set[str] = set()

    async def answer(self, call: Call, trail: Trail | None = None) -> Settled:
        """The answer for the caller: a settled success, or an upstream's refusal with its own status. `trail` is a new
        one.

        Raises FoothillError when no upstream could answer.
        """
        trail = trail or Trail()
        self._tries.begin(self._clock())
        always = call.terms.escalation == "always" and self._holder.may_ask_cloud(call.terms)
        if always and await self._may_escalate(call):
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
            return trail.close(await self._settle(call, trail, first, drawn=drawn))
        if first is not None:
            trail.fail(first)
            trail.retry_ms += self._since(sent_s)
        return trail.close(await self._edge_first(call, trail))

    async def _edge_first(self, call: Call, trail: Trail) -> Settled:
        edge = await self._tries.ask(call, trail)
        if edge is None:
            return await self._without_nodes(call, trail)
        return await self._settle(call, trail, edge)

    async def _cloud_first(self, call: Call, trail: Trail) -> Settled:
        """An edge answer would be thrown away, so the cloud comes first; it leaves the nodes some of the time. One that
        keeps failing is left alone: nodes asked behind it would use up the retry budget."""
        now_s = self._clock()
        early = Deadline(now_s + _CLOUD_FIRST_SHARE * call.deadline.left_s(now_s))
        if self._holder.reaches_cloud():
            settled = await self._ask_cloud(call, trail, early, reason="asked-always", certified=True)
            if settled is not None:
                return settled
        edge = await self._tries.ask(call, trail)
        if edge is None:
            return _give_up(trail)
        if edge.status >= 400:
            return _refused(edge)
        return await self._promised(call, self._holder.keep(call.request, edge, reason=CLOUD_FAILED, degraded=True))

    async def _without_nodes(self, call: Call, trail: Trail) -> Settled:
        """No node answered: the cloud does, else nodes that were left alone because they kept failing."""
        if trail.failure is not None and not self._tries.may_retry(trail):
            return _give_up(trail)
        busy = trail.failure is None and self._busy(call)
        if self._holder.may_ask_cloud(Terms()):
            settled = await self._ask_cloud(call, trail, call.deadline, reason=EDGE_BUSY if busy else NO_EDGE)
            if settled is not None:
                self._purse.spend(call.tenant, call.allowance, self._cloud_cost)
                return settled
        elif busy:
            return await self._without_room(call, trail)
        elif trail.failure is None and not self._tries.field(call).here(self._clock()):
            trail.fail(self._nodes.nowhere(call.model, call.terms, call.version))
        edge = await self._tries.ask(call, trail, resort="last")
        if edge is not None:
            return await self._settle(call, trail, edge)
        return await self._edge_first(call, trail) if await self._pause(call, trail) else _give_up(trail)

    async def _without_room(self, call: Call, trail: Trail) -> Settled:
        """Nodes are full, and there is no cloud: those left alone answer only where they are too many to be ill."""
        edge = await self._tries.ask(call, trail, resort="ejected")
        if edge is not None:
            return await self._settle(call, trail, edge)
        self._tries.shed(call)
        raise _overloaded(call.model, call.terms.priority)

    def _busy(self, call: Call) -> bool:
        """Whether nodes that nobody else asked could answer in time."""
        now_s = self._clock()
        return self._tries.field(call).here(now_s, left_ms=call.deadline.left_ms(now_s))

    async def _ask_cloud(
        self, call: Call, trail: Trail, deadline: Deadline, *, reason: str, certified: bool = False
    ) -> Settled | None:
        started_s, status, failed = self._clock(), 0, "abandoned"
        trail.asked_cloud = True
        try:
            settled = await self._holder.ask_cloud(
                call.request, call.terms, deadline, reason=reason, certified=certified
            )
        except FoothillError as error:
            failed = error.code
            trail.fail(error)
        else:
            status, failed = settled.answer.status, ""
            if judge(settled.answer.status).final or settled.answer.status == 404:
                return settled
            trail.fail(settled.answer)
        finally:
            self._note(trail, ASK_CLOUD, started_s, status, failed)
        trail.retry_ms += self._since(started_s)
        return None

    async def _settle(self, call: Call, trail: Trail, edge: Answer, *, drawn: bool | None = None) -> Settled:
        if edge.status >= 400:
            return _refused(edge)
        settled = self._holder.settled_by(edge)
        if settled is None:
            judged = self._holder.judge(evidence_of(edge), call.terms, call.deadline, drawn=drawn)
            may = judged.verdict.action != "escalate" or await self._may_escalate(call)
            settled = await self._holder.settle(
                call.request,
                edge,
                call.terms,
                call.deadline,
                model=call.model,
                permit=lambda: may,
                judged=judged,
            )
            if ESCALATE in settled.phases:
                failed = "" if settled.tier == "cloud" else settled.reason
                status = settled.answer.status if settled.tier == "cloud" else 0
                self._note(trail, ESCALATE, self._clock() - settled.phases[ESCALATE] / 1000.0, status, failed)
            late = settled.open and await self._may_come_late(call, settled)
            return await self._promised(call, settled) if late else settled
        if call.request.method == "POST":
            self._note_unmarked(edge.headers.get(headers.NODE, ""))
        return settled

    async def _promised(self, call: Call, settled: Settled) -> Settled:
        """The edge's answer; the cloud's comes later where there is room."""
        return msgspec.structs.replace(settled, late=True) if await self._promise(call) else settled

    async def _may_come_late(self, call: Call, settled: Settled) -> bool:
        """The cloud is asked for it too: that is paid for where it was asked before, and failed."""
        return settled.reason == CLOUD_FAILED or await self._may_escalate(call)

    async def _may_escalate(self, call: Call) -> bool:
        """Takes one escalation of its tenant's."""
        return not call.allowance.limited or await self._purse.take(call.tenant, call.allowance, self._cloud_cost)

    async def _pause(self, call: Call, trail: Trail) -> bool:
        """Gives upstreams that have all failed some time; whether they are to be asked again.

        Full jitter (Brooker 2015, "Exponential Backoff And Jitter"), on top of what they ask for themselves.
        """
        if trail.spent or trail.pauses == MAX_PAUSES or not (trail.tried and _may_pass(trail.failure)):
            return False
        wait_s = _told_s(trail.failure) + self._rng.random() * FIRST_PAUSE_S * 2**trail.pauses
        if wait_s > call.deadline.left_s(self._clock()) / 2:
            return False
        trail.pauses += 1
        trail.tried.clear()
        await asyncio.sleep(wait_s)
        return True

    def _note_unmarked(self, name: str) -> None:
        if name not in self._unmarked:
            self._unmarked.add(name)
            log.warning("node %s does not take this router's mark and settles by itself: check hop_key_file", name)

    def _note(self, trail: Trail, purpose: str, started_s: float, status: int, failed: str) -> None:
        """Of a hop to the cloud."""
        trail.hops.append(Hop(purpose, "", self._holder.cloud_region, started_s, self._clock(), status, failed))

    def _since(self, started_s: float) -> float:
        return (self._clock() - started_s) * 1000.0


def _refused(answer: Answer) -> Settled:
    return Settled(answer, "edge", REFUSED, certified=False, degraded=False, phases={})


def _may_pass(failure: Answer | FoothillError | None) -> bool:
    """Whether it may be gone a moment later."""
    if isinstance(failure, Answer):
        return failure.status == 429 or failure.status >= 500
    return failure is not None and failure.retryable


def _told_s(failure: Answer | FoothillError | None) -> float:
    """How long whoever failed asks to be left alone."""
    if isinstance(failure, FoothillError):
        return failure.retry_after_s or 0.0
    told = failure.headers.get("Retry-After", "") if failure is not None else ""
    return float(told) if _SECONDS.fullmatch(told) else 0.0


def _overloaded(model: str, priority: Priority) -> FoothillError:
    return FoothillError(
        "overloaded",
        f"The nodes with model {model!r} have as many requests of priority {priority} as they can answer in time. "
        "Retry later.",
        retry_after_s=BUSY_RETRY_S[priority],
    )


def _give_up(trail: Trail) -> Settled:
    """Tells the first failure: the upstream's own words where it had any."""
    if isinstance(trail.failure, Answer):
        return _refused(trail.failure)
    raise trail.failure or FoothillError("deadline_exceeded", "The deadline passed before a node could be asked.")
