"""What one server has still to be told: bounded, in order, and never less than what was not taken."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.cameras.outlets.backlog import MOST_BYTES, MOST_MESSAGES, Backlog, next_batch
from edge_node.cameras.outlets.journal import Journal, Waiting


@given(st.lists(st.integers(1, MOST_BYTES + 10), min_size=1, max_size=300))
def test_batches_are_within_their_bounds_and_leave_nothing_out(sizes: list[int]) -> None:
    messages = [
        Waiting(number, bytes([number % 256]) * min(size, 4000 if size < MOST_BYTES else size))
        for number, size in enumerate(sizes)
    ]
    waiting, taken = deque(messages), list[Waiting]()
    while waiting:
        batch = next_batch(waiting)
        assert len(batch) <= MOST_MESSAGES
        assert len(batch) == 1 or len(b"[" + b",".join(message.body for message in batch) + b"]") <= MOST_BYTES
        taken += batch
    assert taken == messages


STEPS = st.lists(st.sampled_from(["put", "put", "put", "take", "over", "refuse", "live again"]), max_size=60)


@settings(deadline=None, max_examples=30)
@given(STEPS, st.integers(1, 12), st.integers(20, 200))
def test_through_any_lives_it_is_what_a_plain_queue_would_be(steps: list[str], most: int, most_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_played(Path(directory) / "outlets" / "webhook.db", steps, most, most_bytes))


async def _played(path: Path, steps: list[str], most: int, most_bytes: int) -> None:
    """The plain queue: a batch is its first ones, and stays in it until it is over; a new life has no batch yet."""
    backlog = Backlog(Journal(path, gather_s=0.0), most, most_bytes)
    await backlog.open()
    queue, batch = list[bytes](), 0
    for number, step in enumerate(steps):
        if step == "put":
            body = b"%d" % number * (1 + number % 7)
            backlog.put(body)
            queue.append(body)
        elif step == "take" and not batch and queue:
            batch = len(taken := list(await backlog.take()))
            assert taken == queue[:batch]
        elif step in ("over", "refuse") and batch:
            backlog.over(taken=step == "over")
            queue, batch = queue[batch:], 0
        elif step == "live again":
            assert await backlog.close() == 0
            backlog, batch = Backlog(Journal(path, gather_s=0.0), most, most_bytes), 0
            await backlog.open()
        while len(queue) - batch > most or (sum(map(len, queue[batch:])) > most_bytes and len(queue) - batch > 1):
            del queue[batch]
        assert len(backlog) == len(queue)
    await backlog.close()
    again = Journal(path)
    assert [message.body for message in await again.open() or []] == queue
    await again.close()
