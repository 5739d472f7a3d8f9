"""What the batcher promises: order, bounds, deadlines, and that one request cannot harm another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.serving.batching.line import level_of
from runtime.serving.batching.service_times import ServiceTimes
from runtime.serving.batching.turns import Share, Turns
from runtime.serving.models.batcher import Answered, Asker, Batcher, BatchResult, Waiting, key_of
from runtime.serving.models.shared_run import Run

Array = npt.NDArray[Any]


class Gate:
    """An engine that doubles its input, one run each time it is let; a row of -1 makes it fail."""

    def __init__(self) -> None:
        self.batches: list[Array] = []
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.threads: set[str] = set()
        self.idents: list[int] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.threads.add(threading.current_thread().name)
        self.idents.append(threading.get_ident())
        self.batches.append(inputs["x"])
        self.begun.release()
        assert self.allowed.acquire(timeout=10)
        if (inputs["x"] == -1).any():
            raise FoothillError("internal", "a row of -1")
        return {"y": inputs["x"] * 2}

    def let(self, runs: int = 1) -> None:
        self.allowed.release(runs)

    async def running(self) -> None:
        """Returns when one more run has begun."""
        assert await asyncio.to_thread(self.begun.acquire, True, 10)


@pytest.fixture
def gate() -> Gate:
    return Gate()


Make = Callable[..., Batcher]


def batcher_of(run: Run, *, max_batch: int = 4, batches: bool = True, **options: Any) -> Batcher:
    """A batcher for an engine that takes hardly longer for more rows, and too long to run on the event loop."""
    times = ServiceTimes(max_batch if batches else 1)
    for size in times.sizes:
        times.measured(size, 0.01 + 0.0001 * size)
    return Batcher(run, times, name="m", batches=batches, **{"turns": Turns(1), **options})


@pytest.fixture
async def make(gate: Gate) -> AsyncIterator[Make]:
    made: list[Batcher] = []

    def build(**options: Any) -> Batcher:
        batcher = batcher_of(gate.run, **options)
        made.append(batcher)
        return batcher

    yield build
    gate.let(1000)
    for batcher in made:
        await batcher.close()


def soon(milliseconds: float = 10_000) -> Deadline:
    return Deadline.after(milliseconds, now_s=time.monotonic())


async def two_running(batcher: Batcher, gate: Gate) -> list[asyncio.Task[BatchResult]]:
    """Occupies both lanes of `batcher`, each with one request."""
    return [await busy(batcher, gate), await busy(batcher, gate)]


def rows(*values: float, width: int = 1) -> dict[str, Array]:
    return {"x": np.array([[value] * width for value in values], dtype=np.float32)}


def send(batcher: Batcher, inputs: dict[str, Array], deadline: Deadline | None = None) -> asyncio.Task[BatchResult]:
    return asyncio.create_task(batcher.submit(inputs, deadline or soon()))


async def busy(batcher: Batcher, gate: Gate) -> asyncio.Task[BatchResult]:
    """Occupies the engine with one request until the gate lets it go."""
    task = send(batcher, rows(0))
    await gate.running()
    return task


async def queued(batcher: Batcher, count: int) -> None:
    while batcher.waiting < count:  # noqa: ASYNC110 - the submitting tasks take their turns meanwhile
        await asyncio.sleep(0)


async def test_what_waits_shares_the_next_run_and_each_gets_its_own_rows(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(1)), send(batcher, rows(2, 3)), send(batcher, rows(4))]
    await queued(batcher, 3)
    gate.let(2)
    results = await asyncio.gather(*tasks)
    assert (await first).batch == 1
    assert [result.outputs["y"].ravel().tolist() for result in results] == [[2], [4, 6], [8]]
    assert {result.batch for result in results} == {4}
    assert [batch.ravel().tolist() for batch in gate.batches] == [[0], [1, 2, 3, 4]]
    assert all(result.queue_ms > 0 and result.infer_ms >= 0 for result in results)


async def test_no_run_is_larger_than_max_batch_and_order_is_kept(make: Make, gate: Gate) -> None:
    batcher = make(max_batch=2)
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(value)) for value in range(1, 6)]
    await queued(batcher, 5)
    gate.let(10)
    await asyncio.gather(first, *tasks)
    assert [batch.ravel().tolist() for batch in gate.batches] == [[0], [1, 2], [3, 4], [5]]


async def test_other_shapes_wait_for_a_run_of_their_own(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(1)), send(batcher, rows(2, width=3)), send(batcher, rows(3))]
    await queued(batcher, 3)
    gate.let(3)
    await asyncio.gather(first, *tasks)
    assert [batch.shape for batch in gate.batches] == [(1, 1), (2, 1), (1, 3)]


async def test_a_model_without_a_batch_runs_requests_one_by_one(make: Make, gate: Gate) -> None:
    batcher = make(batches=False)
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(1, 2)), send(batcher, rows(3, 4))]
    await queued(batcher, 2)
    gate.let(3)
    await asyncio.gather(first, *tasks)
    assert [len(batch) for batch in gate.batches] == [1, 2, 2]


async def test_one_failing_request_does_not_fail_those_beside_it(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(1)), send(batcher, rows(-1)), send(batcher, rows(3))]
    await queued(batcher, 3)
    gate.let(5)
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert isinstance(results[2], FoothillError)
    assert results[2].code == "internal"
    assert [result.outputs["y"].item() for result in results if isinstance(result, BatchResult)] == [0, 2, 6]


async def test_a_full_queue_sheds_with_a_time_to_come_back(make: Make, gate: Gate) -> None:
    batcher = make(max_waiting=2)
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(1)), send(batcher, rows(2))]
    await queued(batcher, 2)
    with pytest.raises(FoothillError) as refused:
        await batcher.submit(rows(3), soon())
    assert refused.value.code == "overloaded"
    assert refused.value.retry_after_s is not None
    gate.let(2)
    await asyncio.gather(first, *tasks)


async def test_a_request_is_refused_at_its_deadline_and_never_runs(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    with pytest.raises(FoothillError) as refused:
        await batcher.submit(rows(1), soon(60))
    assert refused.value.code == "deadline_exceeded"
    assert batcher.waiting == 0
    gate.let()
    await first
    assert len(gate.batches) == 1


async def test_a_running_request_is_refused_at_its_deadline_too(make: Make, gate: Gate) -> None:
    batcher = make()
    task = send(batcher, rows(1), soon(30))
    await gate.running()
    with pytest.raises(FoothillError, match="before the model had answered"):
        await task
    gate.let(2)
    assert (await batcher.submit(rows(2), soon())).outputs["y"].item() == 4


async def test_a_deadline_already_past_is_refused_at_once(make: Make, gate: Gate) -> None:
    with pytest.raises(FoothillError, match="before the model could run"):
        await make().submit(rows(1), Deadline(time.monotonic() - 1))
    assert not gate.batches


async def test_a_cancelled_request_leaves_the_queue(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    gone, stays = send(batcher, rows(1)), send(batcher, rows(2))
    await queued(batcher, 2)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert batcher.waiting == 1
    gate.let(2)
    await asyncio.gather(first, stays)
    assert [batch.ravel().tolist() for batch in gate.batches] == [[0], [2]]


async def test_the_event_loop_stays_free_while_the_engine_runs(make: Make, gate: Gate) -> None:
    batcher = make()
    task = await busy(batcher, gate)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    gate.let()
    await task
    assert gate.threads == {"engine-m"}


async def test_closing_refuses_what_waits_and_lets_the_running_finish(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    waiting = send(batcher, rows(1))
    await queued(batcher, 1)
    closing = asyncio.create_task(batcher.close())
    with pytest.raises(FoothillError) as refused:
        await waiting
    assert refused.value.code == "unavailable"
    gate.let()
    await closing
    assert (await first).outputs["y"].item() == 0
    with pytest.raises(FoothillError, match="taken off"):
        await batcher.submit(rows(2), soon())


async def test_an_engine_that_returns_other_rows_than_it_got_fails_the_run() -> None:
    started, go = threading.Event(), threading.Event()

    def shrinking(inputs: Mapping[str, Array]) -> dict[str, Array]:
        started.set()
        go.wait(10)
        return {"y": inputs["x"][:1]}

    batcher = batcher_of(shrinking)
    first = send(batcher, rows(0))
    await asyncio.to_thread(started.wait, 10)
    tasks = [send(batcher, rows(1)), send(batcher, rows(2))]
    await queued(batcher, 2)
    go.set()
    # The shared run fails its check; run alone, one row in and one row out is right again.
    assert [result.outputs["y"].item() for result in await asyncio.gather(first, *tasks)] == [0, 1, 2]
    await batcher.close()


async def test_a_defect_of_the_engine_reaches_every_request_of_the_run(make: Make) -> None:
    def broken(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise ZeroDivisionError("a bug")

    batcher = batcher_of(broken)
    results = await asyncio.gather(*(batcher.submit(rows(1), soon()) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError] * 3
    await batcher.close()


class Then:
    """Has `then` called with what becomes of each request."""

    def __init__(self, then: Callable[[BatchResult | Exception], None]) -> None:
        self._then = then

    def answered(self, run: Answered, mine: Sequence[tuple[Waiting, int]]) -> None:
        for waiting, at in mine:
            self._then(run.result(waiting, at))

    def failed(self, waiting: Waiting, error: Exception) -> None:
        self._then(error)


def enter(
    batcher: Batcher,
    inputs: dict[str, Array],
    deadline: Deadline,
    asker: Asker | Callable[[BatchResult | Exception], None],
    *,
    priority: int = 0,
) -> Waiting:
    waiting = Waiting(
        rows=len(inputs["x"]),
        key=key_of(inputs),
        level=level_of(priority),
        since_s=time.monotonic(),
        expires_at_s=deadline.expires_at_s,
        inputs=inputs,
        asker=Then(asker) if callable(asker) else asker,
    )
    batcher.join(waiting)
    return waiting


class Callers:
    """Who enters, leaves, comes again from within an answer, and fails to take one; told is what each was told."""

    def __init__(self, batcher: Batcher, random: Random) -> None:
        self._batcher = batcher
        self._random = random
        self.told: dict[int, list[BatchResult | Exception]] = {}
        self.left: set[int] = set()
        self._count = 0
        self.inside: dict[int, Waiting] = {}

    def come(self) -> None:
        number = self._count = self._count + 1
        self.told[number] = []
        milliseconds = self._random.choice([0.2, 2, 20, 30_000, 30_000])
        inputs = rows(*[number] * self._random.choice([1, 1, 2]), width=self._random.choice([1, 1, 1, 2]))
        entered = False

        def then(outcome: BatchResult | Exception) -> None:
            assert entered, "told before it was let in"
            self.told[number].append(outcome)
            self.inside.pop(number, None)
            if self._random.random() < 0.3:
                self.come()
            if self._random.random() < 0.1:
                raise ZeroDivisionError("a bug of who was told")

        try:
            waiting = enter(self._batcher, inputs, soon(milliseconds), then, priority=self._random.randrange(4))
        except FoothillError:
            del self.told[number]
            return
        entered = True
        self.inside[number] = waiting

    def leave(self) -> None:
        if self.inside:
            number = self._random.choice([*self.inside])
            assert self._batcher.leave(self.inside.pop(number))
            self.left.add(number)


@pytest.mark.parametrize(
    ("engine_s", "lanes"),
    [(1e-6, 1), (0.01, 1), (0.01, 3)],
    ids=["on the event loop", "in a thread", "in three threads"],
)
@pytest.mark.parametrize("seed", range(15))
async def test_whatever_happens_each_is_told_once_or_has_left(seed: int, engine_s: float, lanes: int) -> None:
    random = Random(seed)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if random.random() < 0.1:
            raise random.choice([FoothillError("internal", "it fails"), ZeroDivisionError("a bug")])
        return {"y": inputs["x"] * 2}

    batcher = batcher_of(run, max_waiting=random.choice([2, 8, 64]), lanes=lanes, turns=Turns(random.choice([1, 3])))
    for size in batcher.schedule.times.sizes:
        batcher.schedule.times.measured(size, engine_s)
    callers = Callers(batcher, random)
    for _ in range(400):
        random.choice([callers.come, callers.come, callers.come, callers.leave])()
        if random.random() < 0.3:
            await asyncio.sleep(random.choice([0, 0, 0.001]))
    if random.random() < 0.5:
        await settled(callers)
    await batcher.close()
    await settled(callers)
    for number, told in callers.told.items():
        assert len(told) == (0 if number in callers.left else 1)
        if told and isinstance(told[0], BatchResult):
            assert set(told[0].outputs["y"].ravel().tolist()) == {2 * number}
    assert not batcher._open
    assert batcher.waiting == 0
    assert callers.left
    assert any(isinstance(told[0], BatchResult) for told in callers.told.values() if told)


async def settled(callers: Callers) -> None:
    """When nobody waits any more; deadlines that are long stay with requests that the engine answers."""
    while callers.inside:  # noqa: ASYNC110 - each is told from within the batcher
        await asyncio.sleep(0.001)


async def test_one_alarm_rings_for_every_deadline_in_whichever_order_they_came(make: Make, gate: Gate) -> None:
    batcher = make()
    for size in batcher.schedule.times.sizes:
        batcher.schedule.times.measured(size, 0.0011)
    first = await busy(batcher, gate)
    left_ms = [*range(80, 120)] * 2
    Random(1).shuffle(left_ms)
    ended: list[float] = []

    async def wait(milliseconds: int) -> None:
        deadline = soon(milliseconds)
        with pytest.raises(FoothillError, match="before the model had answered"):
            await batcher.submit(rows(1), deadline)
        ended.append(deadline.expires_at_s)
        assert time.monotonic() >= deadline.expires_at_s

    await asyncio.gather(*map(wait, left_ms))
    assert len(ended) == len(left_ms)
    assert batcher.waiting == 0
    assert batcher.schedule.refused["expired"] == len(left_ms)
    gate.let()
    assert (await first).batch == 1


async def test_who_is_shed_and_comes_again_at_once_does_not_take_the_place_of_who_shed_it(
    make: Make, gate: Gate
) -> None:
    batcher = make(max_waiting=1)
    first = await busy(batcher, gate)
    told: list[str] = []

    def shed(outcome: BatchResult | Exception) -> None:
        told.append("shed")
        with pytest.raises(FoothillError):
            enter(batcher, rows(3), soon(), lambda _: told.append("came again"), priority=1)

    enter(batcher, rows(1), soon(), shed, priority=3)
    enter(batcher, rows(2), soon(), lambda _: told.append("served"), priority=1)
    assert told == []
    gate.let(2)
    await first
    await batcher.close()
    assert told == ["shed", "served"]


async def test_who_fails_to_take_an_answer_keeps_nobody_from_theirs(
    make: Make, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = make()
    first = await busy(batcher, gate)

    def fail(_: BatchResult | Exception) -> None:
        raise ZeroDivisionError("a bug")

    enter(batcher, rows(1), soon(), fail)
    second = send(batcher, rows(2))
    await queued(batcher, 2)
    gate.let(2)
    await first
    assert (await second).outputs["y"].item() == 4
    assert "could not be handed over" in caplog.text


class Together:
    """Asks for many, and is told of many at once."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, list[tuple[float, int]]]] = []
        self.errors: list[Exception] = []

    def answered(self, run: Answered, mine: Sequence[tuple[Waiting, int]]) -> None:
        results = [run.result(waiting, at) for waiting, at in mine]
        self.runs.append((run.batch, [(result.outputs["y"][0].item(), len(result.outputs["y"])) for result in results]))

    def failed(self, waiting: Waiting, error: Exception) -> None:
        self.errors.append(error)


async def test_each_asker_is_told_once_of_all_its_requests_in_a_run(make: Make, gate: Gate) -> None:
    batcher = make(max_waiting=64)
    first = await busy(batcher, gate)
    one, other = Together(), Together()
    asked = [enter(batcher, rows(*[number] * count), soon(), asker) for number, count, asker in (
        (1, 1, one), (2, 1, other), (3, 2, one), (4, 1, one), (5, 1, other))]  # fmt: skip
    assert batcher.leave(asked[3])
    gate.let()
    await first
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    gate.let()
    await closing
    assert one.runs == [(4, [(2, 1), (6, 2)])]
    assert other.runs == [(4, [(4, 1)])]
    assert [str(error) for error in (*one.errors, *other.errors)] == [str(other.errors[0])]


async def test_an_engine_that_fails_in_two_ways_leaves_nobody_waiting(make: Make, gate: Gate) -> None:
    """A refusal of what shares a run, then a defect with one of them alone."""
    runs = 0

    def broken(inputs: Mapping[str, Array]) -> dict[str, Array]:
        nonlocal runs
        runs += 1
        gate.run(inputs)
        if runs == 3:
            raise ZeroDivisionError("a bug")
        return {"y": inputs["x"]}

    batcher = batcher_of(broken)
    first = await busy(batcher, gate)
    tasks = [send(batcher, rows(1)), send(batcher, rows(-1))]
    await queued(batcher, 2)
    gate.let(10)
    results = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(result) for result in results] == [BatchResult, ZeroDivisionError, FoothillError]
    await batcher.close()


async def test_inputs_without_rows_are_run_too() -> None:
    """A model without a batch may take a single number."""
    batcher = batcher_of(lambda inputs: {"y": inputs["x"] * 2}, batches=False)
    result = await batcher.submit({"x": np.array(3.0, np.float32)}, soon())
    assert result.outputs["y"].item() == 6
    await batcher.close()


async def test_a_closed_batcher_leaves_no_alarm_behind(make: Make, gate: Gate) -> None:
    batcher = make()
    first = await busy(batcher, gate)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    gate.let()
    await closing
    await first
    timer = batcher._open._timer
    assert timer is not None
    assert timer.cancelled()


async def test_on_two_lanes_two_runs_are_under_way_and_a_third_waits_for_the_first_to_end(
    make: Make, gate: Gate
) -> None:
    batcher = make(lanes=2, turns=Turns(2))
    running = await two_running(batcher, gate)
    third = send(batcher, rows(3))
    await queued(batcher, 1)
    assert len(gate.batches) == 2
    gate.let()
    await gate.running()
    assert sum(task.done() for task in running) <= 1
    gate.let(2)
    assert [(await task).outputs["y"].item() for task in (*running, third)] == [0, 0, 6]


async def test_who_comes_together_is_spread_over_idle_lanes(make: Make, gate: Gate) -> None:
    batcher = make(lanes=2, turns=Turns(2))
    for size in batcher.schedule.times.sizes:
        batcher.schedule.times.measured(size, 0.008 + 0.01 * size)
    tasks = [send(batcher, rows(value)) for value in (1, 2, 3, 4)]
    await gate.running()
    await gate.running()
    assert [len(batch) for batch in gate.batches] == [2, 2]
    gate.let(2)
    assert [(await task).batch for task in tasks] == [2, 2, 2, 2]


async def test_a_lane_whose_turn_is_not_at_hand_is_not_counted_on(make: Make, gate: Gate) -> None:
    """Another model has the other slot: what waits makes one batch, as if there were one lane."""
    turns, other = Turns(2), Share(lambda: None)
    turns.ask(other)
    batcher = make(lanes=2, turns=turns)
    for size in batcher.schedule.times.sizes:
        batcher.schedule.times.measured(size, 0.008 + 0.01 * size)
    tasks = [send(batcher, rows(value)) for value in (1, 2, 3, 4)]
    await gate.running()
    assert [len(batch) for batch in gate.batches] == [4]
    gate.let()
    await asyncio.gather(*tasks)


async def test_a_model_asks_for_its_next_lane_before_another_model_can(make: Make, gate: Gate) -> None:
    turns = Turns(2)
    batcher = make(lanes=2, turns=turns)
    for value in range(8):
        enter(batcher, rows(value), soon(), lambda _: None)
    await asyncio.sleep(0)
    assert turns.free == 0


async def test_only_the_run_that_nobody_waits_for_is_given_up(make: Make, gate: Gate) -> None:
    given_up: list[int] = []
    batcher = make(lanes=2, turns=Turns(2), interrupt=given_up.append)
    gone, stays = await two_running(batcher, gate)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert given_up == gate.idents[:1]
    gate.let(2)
    assert (await stays).outputs["y"].item() == 0
    assert len(given_up) == 1


async def test_closing_waits_for_the_runs_on_all_lanes(make: Make, gate: Gate) -> None:
    batcher = make(lanes=2, turns=Turns(2))
    running = await two_running(batcher, gate)
    closing = asyncio.create_task(batcher.close())
    gate.let()
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    assert not closing.done()
    gate.let()
    await closing
    assert [(await task).outputs["y"].item() for task in running] == [0, 0]


async def test_what_is_short_runs_on_the_event_loop_beside_a_long_run(make: Make) -> None:
    started, go = threading.Event(), threading.Event()

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if len(inputs["x"]) == 4:
            started.set()
            assert go.wait(10)
        return {"y": inputs["x"]}

    batcher = batcher_of(run, lanes=2)
    for size, seconds in zip(batcher.schedule.times.sizes, (0.0001, 0.0002, 1.0), strict=True):
        batcher.schedule.times.measured(size, seconds)
    long = send(batcher, rows(1, 2, 3, 4))
    assert await asyncio.to_thread(started.wait, 10)
    assert (await batcher.submit(rows(5), soon())).outputs["y"].item() == 5
    assert not long.done()
    go.set()
    await long
    await batcher.close()
