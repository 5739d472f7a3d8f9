"""Brings what the spool kept to the cloud, the oldest first and slowly, and tells its answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms
from edge_node.spool import Spool, SpoolAway
from edge_node.spool_file import Doubtful, LateAnswer
from runtime.links.escalation.holder import may_change
from runtime.links.escalation.late import as_late
from runtime.links.http.upstream import Answer, Request, UpstreamUnreachable
from runtime.links.process.within import within

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
_LOOK_AGAIN_S = 30.0
_BROKEN = 500

Ask = Callable[[Request, Terms], Awaitable[Answer]]
Tell = Callable[[LateAnswer], bool]
"""Hears of a late answer; False when nobody can be told now, and it is to be tried again."""
Outcome = Literal["done", "away"]


def _unheard(_: LateAnswer) -> None:
    """Nobody in this process listens."""


def _allowed(_: Doubtful) -> bool:
    """Nobody in this process forbids."""
    return True


class Courier:
    """Asks the cloud with `ask`, at most `per_s` times a second and one at a time, so that live requests go first.

    Before each is sent `may_go` is asked whether it still may. Nothing begins before `held` are set.
    `hear` is told of each as it comes, and after the start of those that `tell` has not taken yet. It goes through
    the circuit of all escalations: while that is open nothing is sent but its probes. `wall` gives unix time.
    """

    def __init__(
        self,
        spool: Spool,
        ask: Ask,
        tell: Tell,
        hear: Callable[[LateAnswer], None] = _unheard,
        *,
        may_go: Callable[[Doubtful], bool] = _allowed,
        held: Sequence[asyncio.Event] = (),
        per_s: float,
        wall: Callable[[], float],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._spool = spool
        self._ask = ask
        self._tell = tell
        self._hear = hear
        self._may_go = may_go
        self._held = held
        self._each_s = 1.0 / per_s
        self._wall = wall
        self._rng = rng
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._unwritten: Callable[[], Awaitable[None]] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_going())

    async def stop(self) -> None:
        """What is under way is asked again after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_going(self) -> None:
        for event in self._held:
            await event.wait()
        pause_s, began = FIRST_PAUSE_S, False
        while True:
            try:
                began = began or await self._hear_again()
                outcome = await self.step()
            except SpoolAway:
                outcome = "away"
            except Exception:
                log.exception("spool: a delivery failed in a way that is a defect; it goes on")
                outcome = "away"
            if outcome is None:
                await self._idle()
            elif outcome == "done":
                pause_s = FIRST_PAUSE_S
                await self._sleep(self._each_s)
            else:
                await self._sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def step(self) -> Outcome | None:
        """One input brought, or what kept it from it; None when nothing waits. Raises SpoolAway."""
        await self._write_down()
        await self._spool.expire()
        await self._tell_answers()
        doubtful = await self._spool.next()
        if doubtful is None:
            return None
        if not self._may_go(doubtful):
            return await self._give_up(doubtful, "withdrawn", "who asked does not want it to go any more")
        terms = Terms(residency=doubtful.residency, request_id=doubtful.request_id)
        try:
            answer = await self._ask(doubtful.request, terms)
        except FoothillError as error:
            return await self._refused(doubtful, error)
        except UpstreamUnreachable:
            return "away"
        return await self._take(doubtful, answer)

    async def _take(self, doubtful: Doubtful, answer: Answer) -> Outcome:
        if answer.status == 200:
            self._unwritten = partial(self._keep, doubtful, _late(doubtful, answer, self._wall()))
            await self._write_down()
            await self._tell_answers()
            return "done"
        if not may_change(answer.status):
            return await self._give_up(doubtful, "refused", f"the cloud answered {answer.status}")
        return await self._try_later(doubtful, broken=answer.status == _BROKEN)

    async def _keep(self, doubtful: Doubtful, late: LateAnswer) -> None:
        await self._spool.answer(doubtful, late)
        self._hear(late)

    async def _refused(self, doubtful: Doubtful, error: FoothillError) -> Outcome:
        """Nothing reached the cloud, or nothing came back in time."""
        if error.code == "residency_denied":
            return await self._give_up(doubtful, "residency", "the cloud lies outside its claim now")
        if error.code == "unavailable":
            return "away"
        return await self._try_later(doubtful, broken=error.code == "upstream_failed")

    async def _try_later(self, doubtful: Doubtful, *, broken: bool) -> Outcome:
        """Others have their turn first: what breaks the cloud, or stalls it, must not hold them up.

        `broken`: the answer said that this very input is at fault as likely as the cloud.
        """
        attempts = await self._spool.failed(doubtful)
        if broken and attempts >= MOST_ATTEMPTS:
            return await self._give_up(doubtful, "failed", f"the cloud fails over it, after {attempts} attempts")
        return "away"

    async def _give_up(self, doubtful: Doubtful, reason: str, why: str) -> Outcome:
        log.warning("spool: request %s is given up: %s", doubtful.request_id, why)
        self._unwritten = partial(self._spool.drop, doubtful, reason)
        await self._write_down()
        return "done"

    async def _write_down(self) -> None:
        """What the cloud has said last. On a disk that is full it waits, and nothing is asked a second time."""
        if self._unwritten is not None:
            await self._unwritten()
            self._unwritten = None

    async def _hear_again(self) -> bool:
        """What the last process may have died of telling."""
        for tenant, request_id in await self._spool.untold():
            late = await self._spool.find(tenant, request_id)
            if isinstance(late, LateAnswer):
                self._hear(late)
        return True

    async def _tell_answers(self) -> None:
        while (late := await self._spool.unpublished()) is not None:
            if not self._tell(late):
                return
            await self._spool.published(late)

    async def _idle(self) -> None:
        self._spool.news.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._spool.news.wait(), _LOOK_AGAIN_S)


def _late(doubtful: Doubtful, answer: Answer, now_s: float) -> LateAnswer:
    late = as_late(doubtful.request.path, doubtful.request_id, answer)
    return LateAnswer(
        tenant=doubtful.tenant,
        request_id=doubtful.request_id,
        model=doubtful.model,
        stratum=doubtful.stratum,
        confidence=doubtful.confidence,
        edge_answer=doubtful.answer,
        cloud_answer=answer.headers.get(headers.ANSWER, ""),
        spooled_at_s=doubtful.at_s,
        answered_at_s=now_s,
        headers=dict(late.headers),
        body=late.body,
        note=doubtful.note,
    )
