"""Simulated rollouts end where they should, and the same seed tells the same story."""

from __future__ import annotations

import pytest

from benchmarks.rollouts import GOOD, VERSIONS, Ended, measured, one
from fleet.judging.aims import GateSettings

SETTINGS = GateSettings()


@pytest.mark.parametrize("name", [name for name, version in VERSIONS.items() if version != GOOD])
def test_a_bad_version_goes_no_further_than_the_canary(name: str) -> None:
    for seed in range(3):
        ended = one(VERSIONS[name], seed, SETTINGS)
        assert (ended.caught, ended.beyond, ended.whole) == (True, 0, True), ended


def test_a_good_one_reaches_every_node() -> None:
    ended = one(GOOD, 1, SETTINGS)
    assert (ended.caught, ended.beyond, ended.whole) == (False, 17, True), ended


def test_the_same_seed_is_the_same_rollout() -> None:
    assert one(GOOD, 7, SETTINGS) == one(GOOD, 7, SETTINGS)


def test_shares_come_with_their_intervals() -> None:
    ended = [Ended(caught, 0, True, 10.0, "") for caught in (True, False, False, False)]
    row = measured("some", ended)
    assert row.stopped == 0.25
    assert row.low < 0.25 < row.high
