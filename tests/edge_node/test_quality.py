"""What a node says of how its versions serve."""

from __future__ import annotations

import pytest

from contracts.messages import Vitals
from contracts.quality import Counts
from edge_node.quality import QualityTold, is_strained


def test_versions_that_have_done_nothing_are_not_told() -> None:
    counts = {"a": Counts(runs=3), "b": Counts()}
    assert QualityTold(lambda: counts).now() == {"a": Counts(runs=3)}


def test_what_was_told_in_an_epoch_is_not_told_in_the_next() -> None:
    counts = {"a": Counts(runs=3), "b": Counts(runs=1)}
    told = QualityTold(lambda: counts)
    assert told.now() == counts
    told.begin_epoch()
    assert told.now() == {}
    counts = {"a": Counts(runs=5), "b": Counts(runs=1), "c": Counts(looks=1)}
    assert told.now() == {"a": Counts(runs=2), "c": Counts(looks=1)}


@pytest.mark.parametrize(
    ("vitals", "strained"),
    [
        (Vitals(), False),
        (Vitals(free_memory_bytes=100, free_disk_bytes=200, throttled=False), False),
        (Vitals(free_memory_bytes=99), True),
        (Vitals(free_disk_bytes=199), True),
        (Vitals(throttled=True), True),
    ],
)
def test_a_machine_is_strained_that_is_short_of_something_or_slowed_down(vitals: Vitals, strained: bool) -> None:
    assert is_strained(vitals, least_memory_bytes=100, least_disk_bytes=200) is strained
