"""Requests for one model, in the batches that keep the most deadlines, through one engine: answered in time or refused.

What is decided stands in `batching/`; here is the event loop, the engine's threads, and who waits for what.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from contracts.deadlines import Deadline
from runtime.links.process.alarm import Alarm
from runtime.serving.batching import refusals
from runtime.serving.batching.line import Entry, level_of
from runtime.serving.batching.schedule import Schedule
from runtime.serving.batching.service_times import ServiceTimes
from runtime.serving.batching.turns import Share, Turns
from runtime.serving.engines.tensors import Array
from runtime.serving.engines.thread import EngineThread
from runtime.serving.models.postprocess import Reading
from runtime.serving.models.shared_run import Ran, Read, Run, Whole, read_nothing, run_shared

log = logging.getLogger(__name__)

Clock = Callable[[], float]
INLINE_S = 0.001
"""A run that takes less is not worth a thread: handing it over costs more, and it holds the event loop up no longer
than reading a body does."""


class BatchResult(msgspec.Struct, frozen=True):
    """`outputs` may be views into those of the whole batch, which had `batch` rows. Times in ms."""

    outputs: dict[str, Array]
    reading: Reading
    queue_ms: float
    infer_ms: float
    batch: int


class Answered(msgspec.Struct, frozen=True):
    """A run that has ended, of `batch` rows. `started_s` is when it began; its time in ms."""

    whole: Whole
    started_s: float
    infer_ms: float
    batch: int

    def result(self, waiting: Waiting, at: int) -> BatchResult:
        """For the request at that place in it."""
        queue_ms = (self.started_s - waiting.since_s) * 1000.0
        return BatchResult(self.whole.part(at), self.whole.readings.of(at), queue_ms, self.infer_ms, self.batch)


class Asker(Protocol):
    """Who waits for answers, maybe for many at once: told of each one once, on the event loop, never before `join`
    returns. Must not raise: that is a defect, which is logged, since others wait for their answers behind it."""

    def answered(self, run: Answered, mine: Sequence[tuple[Waiting, int]]) -> None:
        """The requests of this asker in a run, each with its place in it."""
        ...

    def failed(self, waiting: Waiting, error: Exception) -> None:
        """What the batcher or the engine has to say instead of an answer."""
        ...


class Waiting(Entry, kw_only=True, eq=False):
    """One request: `inputs` for the engine, of whose answer `asker` is told. `wants_reading`: more than tensors is
    asked for, and worked out where the run was."""

    inputs: Mapping[str, Array]
    asker: Asker
    wants_reading: bool = False
    done: bool = False


class Lane:
    """One run at a time: a thread for it, and the batch that it runs now."""

    def __init__(self, name: str) -> None:
        self.thread = EngineThread(name)
        self.batch: Sequence[Waiting] = ()
        self.wanted_s = 0.0


class Batcher:
    """All state is changed on the event loop; the threads only run the engine. `clock` is that of the deadlines.

    Requests that arrive in one turn of the event loop meet before the first of them is run. At most `lanes` runs are
    under way at once; more than one asks for an engine that is `concurrent`. `interrupt` gives up the run in a thread.
    `turns` is shared by all models of the process; a run below INLINE_S takes none, since its time is shorter than what
    it would wait for.
    """

    def __init__(
        self,
        run: Run,
        times: ServiceTimes,
        *,
        name: str,
        batches: bool,
        turns: Turns,
        lanes: int = 1,
        read: Read = read_nothing,
        interrupt: Callable[[int], None] = lambda thread: None,
        max_waiting: int = 256,
        clock: Clock = time.monotonic,
    ) -> None:
        self.schedule: Schedule[Waiting] = Schedule(times, max_waiting=max_waiting, lanes=lanes)
        self._run = run
        self._read = read
        self._batches = batches
        self._turns = turns
        self._share = Share(self._run_in_thread)
        self._interrupt = interrupt
        self._clock = clock
        self._lanes = [Lane(f"engine-{name}") for _ in range(lanes)]
        self._idle = [*self._lanes]
        self._loop = asyncio.get_running_loop()
        self._wanted_s = 0.0
        self._asked = self._woken = self._closed = False
        self._open: Alarm[Waiting] = Alarm(self._expire, clock)

    @property
    def waiting(self) -> int:
        return self.schedule.line.waiting

    async def submit(
        self, inputs: Mapping[str, Array], deadline: Deadline, *, priority: int = 0, wants_reading: bool = False
    ) -> BatchResult:
        """Waits for the answer. A cancelled caller leaves the queue at once; a run that nobody waits for is given up.

        Raises Refused, or what the engine raised.
        """
        answer: asyncio.Future[BatchResult] = self._loop.create_future()
        waiting = Waiting(
            rows=len(next(iter(inputs.values()))) if self._batches else 1,
            key=key_of(inputs),
            level=level_of(priority),
            since_s=self._clock(),
            expires_at_s=deadline.expires_at_s,
            inputs=inputs,
            asker=_Single(answer),
            wants_reading=wants_reading,
        )
        self.join(waiting)
        try:
            return await answer
        except asyncio.CancelledError:
            self.leave(waiting)
            raise

    def join(self, waiting: Waiting) -> None:
        """Lets a request in that has come just now. Raises Refused for one that is not let in."""
        if self._closed:
            raise self.schedule.count(refusals.closed())
        displaced = self.schedule.admit(waiting, waiting.since_s)
        if displaced is not None:
            # Later: who is told may come again at once, and would be let in before the one whose place this is.
            self._loop.call_soon(self._fail, *displaced)
        self._open.set(waiting, waiting.expires_at_s)
        if self._idle and not (self._woken or self._asked):
            self._woken = True
            self._loop.call_soon(self._start)

    def foresee(self, rows: int, deadline: Deadline, *, priority: int = 0) -> None:
        """Raises Refused where such a request would not be let in if it came now."""
        now_s = self._clock()
        if self._closed:
            raise self.schedule.count(refusals.closed())
        entry = Entry(rows=rows, key=None, level=level_of(priority), since_s=now_s, expires_at_s=deadline.expires_at_s)
        self.schedule.foresee(entry, now_s)

    def leave(self, waiting: Waiting) -> bool:
        """Nobody waits for this answer any more, and nobody is called. Whether anybody would still have been."""
        if waiting.done:
            return False
        self.schedule.refused["gone"] += 1
        waiting.done = True
        self._drop(waiting)
        return True

    async def close(self) -> None:
        """Refuses what waits and what comes, and returns when the engine threads have ended."""
        self._closed = True
        for waiting in [*self.schedule.line.ordered()]:
            self.schedule.line.discard(waiting)
            self._fail(waiting, self.schedule.count(refusals.closed()))
        if self._asked:
            self._turns.withdraw(self._share)
        await self._loop.run_in_executor(None, self._stop)
        self._open.stop()

    def _stop(self) -> None:
        for lane in self._lanes:
            lane.thread.stop()

    def _start(self) -> None:
        """Runs the next batch here when it is short, else asks for a turn of the machine."""
        self._woken = False
        if self._asked or not self._idle:
            return
        batch = self._take()
        if batch and self._is_short(batch):
            self._run_here(batch)
        elif batch:
            self._ask()

    def _ask(self) -> None:
        self._asked = True
        self._wanted_s = self._clock()
        self._turns.ask(self._share)

    def _take(self, *, lanes: int = 1) -> list[Waiting]:
        """The next batch where `lanes` may begin one; whoever can no longer be in time is told so."""
        if self._closed:
            return []
        batch, late = self.schedule.next(self._clock(), lanes=lanes)
        for waiting, refusal in late:
            self._fail(waiting, refusal)
        return batch

    def _is_short(self, batch: Sequence[Waiting]) -> bool:
        times = self.schedule.times
        return times.known and times.engine_s(sum(waiting.rows for waiting in batch)) < INLINE_S

    def _run_here(self, batch: Sequence[Waiting]) -> None:
        lane = self._begin(batch, self._clock())
        ran = run_shared(self._run, self._reader(batch), [waiting.inputs for waiting in batch], self._clock)
        self._end(lane, ran)
        self._answer(batch, ran)
        self._wake()

    def _run_in_thread(self) -> None:
        """The turn has come. The batch is made now: who came meanwhile may be in it."""
        self._asked = False
        batch = self._take(lanes=min(len(self._idle), 1 + self._turns.free))
        if not batch:
            self._turns.done(self._share, 0.0, again=False)
            return
        lane = self._begin(batch, self._wanted_s)
        requests, read = [waiting.inputs for waiting in batch], self._reader(batch)

        def work() -> None:
            ran = run_shared(self._run, read, requests, self._clock)
            self._loop.call_soon_threadsafe(self._finish, lane, ran)

        lane.thread.start(work)
        if self._wants_turn():
            self._ask()
        else:
            self._wake()

    def _reader(self, batch: Sequence[Waiting]) -> Read:
        if not any(waiting.wants_reading for waiting in batch):
            return self._read
        return lambda outputs, ends: self._read(outputs, ends).worked_out()

    def _finish(self, lane: Lane, ran: Ran) -> None:
        """Passes the turn on, or into the next batch, before the answers of this one take the event loop's time."""
        batch = lane.batch
        self._end(lane, ran)
        again = self._wants_turn()
        if again:
            self._asked, self._wanted_s = True, self._clock()
        self._turns.done(self._share, ran.engine_s, again=again)
        self._answer(batch, ran)
        self._wake()

    def _wants_turn(self) -> bool:
        """Whether a batch waits that is worth a thread, and a lane for it."""
        if self._asked or not self._idle:
            return False
        batch = self._take()
        return bool(batch) and not self._is_short(batch)

    def _begin(self, batch: Sequence[Waiting], wanted_s: float) -> Lane:
        lane = self._idle.pop()
        lane.batch, lane.wanted_s = batch, wanted_s
        self.schedule.begin(batch, self._clock())
        return lane

    def _end(self, lane: Lane, ran: Ran) -> None:
        now_s = self._clock()
        whole_s = now_s - lane.wanted_s
        self.schedule.end(lane.batch, engine_s=ran.engine_s, whole_s=whole_s, now_s=now_s, sound=ran.sound)
        lane.batch = ()
        self._idle.append(lane)

    def _answer(self, batch: Sequence[Waiting], ran: Ran) -> None:
        infer_ms = ran.engine_s * 1000.0
        if ran.together is not None:
            rows = sum([waiting.rows for waiting in batch])
            self._tell(Answered(ran.together, ran.started_s, infer_ms, rows), batch)
            return
        for waiting, alone in zip(batch, ran.apart, strict=True):
            if isinstance(alone, Whole):
                self._tell(Answered(alone, ran.started_s, infer_ms, waiting.rows), [waiting])
            else:
                self._fail(waiting, alone)

    def _tell(self, run: Answered, batch: Sequence[Waiting]) -> None:
        """Each asker of its requests that are in time."""
        now_s, shares = self._clock(), dict[Asker, list[tuple[Waiting, int]]]()
        for at, waiting in enumerate(batch):
            if waiting.done:
                continue
            if now_s > waiting.expires_at_s:
                self._expire(waiting)
                continue
            waiting.done = True
            self._open.clear(waiting)
            shares.setdefault(waiting.asker, []).append((waiting, at))
        for asker, mine in shares.items():
            self._hand_over(partial(asker.answered, run, mine))

    def _fail(self, waiting: Waiting, error: Exception) -> None:
        if not waiting.done:
            waiting.done = True
            self._open.clear(waiting)
            self._hand_over(partial(waiting.asker.failed, waiting, error))

    def _hand_over(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:
            log.exception("an answer could not be handed over")

    def _wake(self) -> None:
        if self.waiting and self._idle and not (self._woken or self._asked or self._closed):
            self._woken = True
            self._loop.call_soon(self._start)

    def _expire(self, waiting: Waiting) -> None:
        refusal = self.schedule.count(refusals.expired("the model had answered"))
        self._fail(waiting, refusal)
        self._drop(waiting)

    def _drop(self, waiting: Waiting) -> None:
        """It is not run any more, and not run on when nobody else waits for that run."""
        self._open.clear(waiting)
        if self.schedule.line.discard(waiting):
            return
        for lane in self._lanes:
            if waiting in lane.batch and all(each.done for each in lane.batch):
                self._interrupt(lane.thread.ident)


class _Single:
    """Waits for one answer."""

    def __init__(self, answer: asyncio.Future[BatchResult]) -> None:
        self._answer = answer

    def answered(self, run: Answered, mine: Sequence[tuple[Waiting, int]]) -> None:
        if not self._answer.done():
            self._answer.set_result(run.result(*mine[0]))

    def failed(self, waiting: Waiting, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


def key_of(inputs: Mapping[str, Array]) -> Hashable:
    """What may share a run: tensors of the same names and types, alike but for their rows."""
    return tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])
