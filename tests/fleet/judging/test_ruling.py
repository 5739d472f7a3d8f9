"""Gates over all streams: how often a good version is stopped, and that bad ones are."""

from __future__ import annotations

import random

import pytest

from contracts.quality import Counts
from contracts.risk.sequential import Decision
from fleet.judging.aims import GateSettings, Tally, aims_for
from fleet.judging.ruling import Ruling
from tests.fleet.judging.versions import Version, hits

SETTINGS = GateSettings()
OLD = Version()
AIMS = aims_for(OLD.counts(random.Random(7), 5000, 1000), Tally(1000, 50), SETTINGS)


def judged(version: Version, seed: int, rounds: int = 1000) -> Ruling:
    """After as many rounds of 100 runs, 20 audits and 5 looks as it takes."""
    rng, ruling = random.Random(seed), Ruling(AIMS)
    for _ in range(rounds):
        ruling = ruling.counted(version.counts(rng, 100, 5))
        for _ in range(20):
            ruling = ruling.audited(Tally(1, int(rng.random() < version.disagreeing)))
        if ruling.decision != "continue":
            break
    return ruling


def test_a_version_as_good_as_the_old_one_passes() -> None:
    assert judged(OLD, 1).decision == "accept"


@pytest.mark.parametrize(
    ("version", "stream"),
    [
        (Version(failed=0.03), "failed"),
        (Version(disagreeing=0.10), "disagreeing"),
        (Version(slower_by=3), "slow"),
        (Version(failed=1.0), "failed"),
        (Version(doubtful=0.45), "doubtful"),
        (Version(doubtful=0.0), "certain"),
        (Version(strained=0.6), "strained"),
    ],
)
def test_a_bad_version_is_rejected_for_what_is_bad_about_it(version: Version, stream: str) -> None:
    for seed in range(5):
        ruling = judged(version, seed)
        assert ruling.decision == "reject"
        assert stream in ruling.reason
        (told,) = (evidence for evidence in ruling.evidence() if evidence.stream == stream)
        assert told.decision == "reject"
        assert told.llr >= -5.0


def test_nothing_is_decided_without_evidence() -> None:
    assert Ruling(AIMS).decision == "continue"
    assert Ruling(AIMS).counted(Counts()).decision == "continue"


def test_runs_alone_do_not_pass_a_model() -> None:
    ruling, rng = Ruling(AIMS), random.Random(3)
    for _ in range(100):
        ruling = ruling.counted(OLD.counts(rng, 100, 5))
    assert ruling.decision == "continue"


def test_what_was_accepted_may_still_be_rejected() -> None:
    ruling = judged(OLD, 1)
    rng = random.Random(5)
    for _ in range(200):
        ruling = ruling.counted(Version(failed=0.1).counts(rng, 100, 5))
    assert ruling.decision == "reject"


def test_a_rejection_stands() -> None:
    ruling = judged(Version(failed=0.5), 1)
    for _ in range(50):
        ruling = ruling.counted(Version(failed=0.0).counts(random.Random(2), 1000, 5))
    assert ruling.decision == "reject"


def decided(p: float, stream: str, seed: int, most: int = 200_000) -> Decision:
    """By one stream alone, in batches, as nodes tell them."""
    test, rng, n, k = AIMS.streams[stream].test, random.Random(seed), 0, 0  # type: ignore[index]
    while n < most:
        n, k = n + 50, k + hits(rng, 50, p)
        decision = test.decide(n, k)
        if decision != "continue":
            return decision
    return "continue"


def test_at_the_edge_of_what_is_good_false_stops_stay_below_alpha() -> None:
    terms = AIMS.streams["failed"]
    stops = sum(decided(terms.p0, "failed", seed) == "reject" for seed in range(300))
    assert stops / 300 <= SETTINGS.alpha  # the stream's own share of it is a sixth


def test_at_the_edge_of_what_is_bad_hardly_anything_slips_through() -> None:
    terms = AIMS.streams["disagreeing"]
    assert sum(decided(terms.p1, "disagreeing", seed) != "reject" for seed in range(300)) <= 1
