"""Turns of nodes that want chunks."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from contracts.messages import ChunkWant
from fleet.chunk_queue import ChunkQueue, Wanted

DIGEST = "sha256:" + "a" * 64
wants = st.builds(
    ChunkWant,
    node=st.sampled_from(["a", "b", "c"]),
    ask=st.integers(1, 2),
    content=st.just(DIGEST),
    chunks=st.lists(st.integers(0, 20), min_size=1, max_size=10).map(tuple),
)


@given(st.lists(st.one_of(wants, st.integers(1, 9)), max_size=60))
def test_every_chunk_is_sent_once_for_each_time_it_was_wanted_and_no_node_overtakes(
    steps: list[ChunkWant | int],
) -> None:
    queue, waiting, turns = ChunkQueue(), set[Wanted](), list[Wanted]()
    for step in steps:
        if isinstance(step, ChunkWant):
            queue.add(step)
            waiting |= {Wanted(step.node, step.ask, step.content, number) for number in step.chunks}
        else:
            taken = queue.take(step)
            assert len(taken) == min(step, len(waiting))
            counts = Counter(one.node for one in taken)
            hungry = {one.node for one in waiting - set(taken)}
            assert all(counts[node] >= max(counts.values(), default=0) - 1 for node in hungry)
            waiting -= set(taken)
            turns += taken
        assert len(queue) == len(waiting)
        assert bool(queue) == bool(waiting)


def test_a_node_that_wants_too_much_loses_its_own_oldest() -> None:
    queue = ChunkQueue(most_of_a_node=3)
    queue.add(ChunkWant("modest", 1, DIGEST, (0,)))
    queue.add(ChunkWant("greedy", 1, DIGEST, tuple(range(10))))
    assert (len(queue), queue.dropped) == (4, 7)
    assert [(one.node, one.number) for one in queue.take(9)] == [
        ("modest", 0),
        ("greedy", 7),
        ("greedy", 8),
        ("greedy", 9),
    ]


def test_a_thousand_greedy_nodes_do_not_hold_up_one() -> None:
    queue = ChunkQueue()
    for number in range(1000):
        queue.add(ChunkWant(f"n{number}", 1, DIGEST, tuple(range(64))))
    queue.add(ChunkWant("late", 1, DIGEST, (5,)))
    assert Wanted("late", 1, DIGEST, 5) in queue.take(1001)
