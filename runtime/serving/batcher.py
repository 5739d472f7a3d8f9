"""Requests for one model, a few at a time through one engine thread, each before its deadline or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.serving.tensors import Array

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
Clock = Callable[[], float]
_Key = tuple[tuple[str, str, tuple[int, ...]], ...]
_MEMORY = 0.9


class BatchResult(msgspec.Struct, frozen=True):
    """`outputs` may be views into those of the whole batch, which had `batch` rows. Times in ms."""

    outputs: dict[str, Array]
    queue_ms: float
    infer_ms: float
    batch: int


class _Waiting(msgspec.Struct, eq=False):
    inputs: Mapping[str, Array]
    rows: int
    key: _Key
    since_s: float
    answer: asyncio.Future[BatchResult]


class _Ran(msgspec.Struct, frozen=True):
    """What the engine thread made of a batch: outputs, or what failed, per request in its order."""

    results: list[dict[str, Array] | FoothillError]
    started_s: float
    infer_ms: float


class Batcher:
    """First come, first served. When the engine is free it takes what waits, up to `max_batch` rows of one shape.

    All state is changed on the event loop; the thread only runs the engine. `clock` is that of the deadlines.
    """

    def __init__(
        self,
        run: Run,
        *,
        name: str,
        max_batch: int,
        batches: bool,
        max_waiting: int = 256,
        clock: Clock = time.monotonic,
    ) -> None:
        self._run = run
        self._max_batch = max_batch if batches else 1
        self._batches = batches
        self._max_waiting = max_waiting
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{name}")
        self._waiting: dict[int, _Waiting] = {}
        self._next = 0
        self._running = False
        self._closed = False
        self._row_ms = 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def submit(self, inputs: Mapping[str, Array], deadline: Deadline) -> BatchResult:
        """Waits for the answer. A cancelled caller leaves the queue at once.

        Raises FoothillError: `overloaded` when the queue is full, `deadline_exceeded` when time is up before the
        answer is there, `unavailable` after close, and what the engine raised.
        """
        loop = asyncio.get_running_loop()
        now_s = self._clock()
        self._admit(deadline, now_s)
        ticket = self._next
        self._next += 1
        rows = len(next(iter(inputs.values()))) if self._batches else 1
        answer: asyncio.Future[BatchResult] = loop.create_future()
        self._waiting[ticket] = _Waiting(inputs, rows, _key(inputs) if self._batches else (), now_s, answer)
        alarm = loop.call_later(deadline.left_s(now_s), _expire, answer)
        self._start(loop)
        try:
            return await answer
        finally:
            alarm.cancel()
            self._waiting.pop(ticket, None)

    async def close(self) -> None:
        """Refuses what waits and what comes, and returns when the engine thread has ended."""
        self._closed = True
        for waiting in self._waiting.values():
            _settle(waiting.answer, _closed())
        self._waiting.clear()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _admit(self, deadline: Deadline, now_s: float) -> None:
        if self._closed:
            raise _closed()
        deadline.check(now_s, "the model could run")
        if len(self._waiting) >= self._max_waiting:
            rows = sum(waiting.rows for waiting in self._waiting.values())
            raise FoothillError(
                "overloaded",
                f"{len(self._waiting)} requests wait for this model already. Try again later, or ask another node.",
                retry_after_s=max(0.1, rows * self._row_ms / 1000.0),
            )

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hands the next batch to the engine thread, if that is free and something waits."""
        if self._running or self._closed:
            return
        batch = self._take()
        if not batch:
            return
        self._running = True
        work = self._thread.submit(_run_batch, self._run, [waiting.inputs for waiting in batch], self._clock)
        work.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, loop, batch, done))

    def _take(self) -> list[_Waiting]:
        """The oldest request that still wants an answer, and those behind it that fit into the same run."""
        batch: list[_Waiting] = []
        rows = 0
        for ticket, waiting in list(self._waiting.items()):
            if waiting.answer.done():
                del self._waiting[ticket]
            elif not batch or (waiting.key == batch[0].key and rows + waiting.rows <= self._max_batch):
                batch.append(self._waiting.pop(ticket))
                rows += waiting.rows
            if rows >= self._max_batch:
                break
        return batch

    def _finish(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Waiting], done: Future[_Ran]) -> None:
        self._running = False
        self._start(loop)
        failure = done.exception()
        if failure is not None:
            for waiting in batch:
                _settle(waiting.answer, failure)
            return
        ran, rows = done.result(), sum(waiting.rows for waiting in batch)
        self._row_ms = _MEMORY * self._row_ms + (1 - _MEMORY) * ran.infer_ms / rows
        for waiting, result in zip(batch, ran.results, strict=True):
            queue_ms = (ran.started_s - waiting.since_s) * 1000.0
            if isinstance(result, FoothillError):
                _settle(waiting.answer, result)
            elif not waiting.answer.done():
                waiting.answer.set_result(BatchResult(result, queue_ms, ran.infer_ms, rows))


def _run_batch(run: Run, requests: Sequence[Mapping[str, Array]], clock: Clock) -> _Ran:
    """In the engine thread. When a shared run fails, each request runs alone, so that one cannot fail the others."""
    started_s = clock()
    try:
        results: list[dict[str, Array] | FoothillError] = [*_run_together(run, requests)]
    except FoothillError as error:
        results = [error] if len(requests) == 1 else [_run_alone(run, inputs) for inputs in requests]
    return _Ran(results, started_s, (clock() - started_s) * 1000.0)


def _run_together(run: Run, requests: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    if len(requests) == 1:
        return [run(requests[0])]
    joined = {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}
    outputs = run(joined)
    ends = np.cumsum([len(next(iter(inputs.values()))) for inputs in requests]).tolist()
    _check_rows(outputs, ends[-1])
    starts = [0, *ends[:-1]]
    return [
        {name: array[start:end] for name, array in outputs.items()} for start, end in zip(starts, ends, strict=True)
    ]


def _run_alone(run: Run, inputs: Mapping[str, Array]) -> dict[str, Array] | FoothillError:
    try:
        return run(inputs)
    except FoothillError as error:
        return error


def _check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    for name, array in outputs.items():
        if len(array) != rows:
            raise FoothillError("internal", f"Output {name!r} has {len(array)} rows for {rows} rows of input.")


def _key(inputs: Mapping[str, Array]) -> _Key:
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items())


def _expire(answer: asyncio.Future[BatchResult]) -> None:
    _settle(
        answer,
        FoothillError(
            "deadline_exceeded",
            "The deadline passed before the model had answered. "
            "Send a larger Foothill-Deadline-Ms, or ask a nearer or less busy node.",
        ),
    )


def _settle(answer: asyncio.Future[BatchResult], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def _closed() -> FoothillError:
    return FoothillError("unavailable", "This model is being taken off this node. Try again, or ask another node.")
