"""Late answers: doubtful requests whose escalation failed or was late are brought to the cloud behind their callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from contracts.errors import FoothillError
from contracts.headers import Terms
from router.tries import Call
from runtime.links.escalation.holder import Holder, may_change
from runtime.links.escalation.late import SPOOLED, Waiting, as_late
from runtime.links.http.upstream import Answer, Request, UpstreamUnreachable

log = logging.getLogger(__name__)

MOST, MOST_BYTES = 1024, 64 << 20
"""Of promises, and of answers."""
KEEP_S = 300.0
GIVE_UP_S = 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0


class Key(NamedTuple):
    """Callers see their own tenant's only."""

    tenant: str
    request_id: str


class Result(msgspec.Struct):
    """One that was promised. `answer` None: it is on its way, or given up when `ended`."""

    waiting: Waiting
    ended: asyncio.Event
    ends_at_s: float
    answer: Answer | None = None


class Results:
    """Keeps promises for two minutes and answers for five, in memory and within bounds: what does not fit is not
    promised, and the oldest answer gives way. `clock` is monotonic, `wall` unix time, both in seconds."""

    def __init__(self, holder: Holder, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._holder = holder
        self._clock = clock
        self._wall = wall
        self._promised: dict[Key, Result] = {}
        self._kept: dict[Key, Result] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._promised_bytes = self._kept_bytes = 0

    def promise(self, call: Call, done: Callable[[], None] | None = None) -> bool:
        """Whether the cloud's answer to a request, whose caller gets the edge's, will be here under its id. If so,
        `done` is called when it is, or is given up."""
        key, size = Key(call.tenant, call.terms.request_id), call.request.size
        fits = len(self._promised) < MOST and self._promised_bytes + size <= MOST_BYTES
        if call.terms.escalation == "never" or not fits or self.find(*key) is not None:
            return False
        waiting = Waiting(SPOOLED, key.request_id, call.model, self._wall())
        result = self._promised[key] = Result(waiting, asyncio.Event(), self._clock() + GIVE_UP_S)
        self._promised_bytes += size
        task = asyncio.create_task(self._bring(key, result, call.request, call.terms))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        if done is not None:
            task.add_done_callback(lambda _: done())
        return True

    def find(self, tenant: str, request_id: str) -> Result | None:
        self._forget()
        key = Key(tenant, request_id)
        return self._promised.get(key) or self._kept.get(key)

    async def close(self) -> None:
        """What waits is given up."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _bring(self, key: Key, result: Result, request: Request, terms: Terms) -> None:
        try:
            result.answer = await self._answer(result, request, terms)
        except Exception:
            log.exception("the late answer to %s was lost", key.request_id)
        finally:
            del self._promised[key]
            self._promised_bytes -= request.size
            if result.answer is not None:
                result.ends_at_s = self._clock() + KEEP_S
                self._kept[key] = result
                self._kept_bytes += len(result.answer.body)
                self._forget()
            result.ended.set()

    async def _answer(self, result: Result, request: Request, terms: Terms) -> Answer | None:
        """None where the cloud has refused it, or did not answer in two minutes."""
        pause_s = _FIRST_PAUSE_S
        while True:
            answer = await self._asked(request, terms)
            if answer is not None and answer.status == 200:
                return as_late(request.path, terms.request_id, answer)
            if answer is not None and not may_change(answer.status):
                return None
            if self._clock() + pause_s >= result.ends_at_s:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _asked(self, request: Request, terms: Terms) -> Answer | None:
        try:
            return await self._holder.ask_late(request, terms)
        except (UpstreamUnreachable, FoothillError) as error:
            log.debug("a late answer is not there yet: %s", error)
            return None

    def _forget(self) -> None:
        """Answers whose time is up, and the oldest of too many: they are kept in the order in which they came."""
        now_s = self._clock()
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if now_s < oldest.ends_at_s and len(self._kept) <= MOST and self._kept_bytes <= MOST_BYTES:
                return
            del self._kept[key]
            self._kept_bytes -= len(oldest.answer.body) if oldest.answer is not None else 0
