"""What a successor is held to follows from what the old version has shown, and from nothing else."""

from __future__ import annotations

import random

import pytest

from contracts.errors import FoothillError
from contracts.quality import Counts
from fleet.judging.aims import STREAMS, GateSettings, Margins, Tally, aims_for, tallies_of
from tests.fleet.judging.versions import Version

OLD = Version().counts(random.Random(1), 5000, 1000)
AUDITED = Tally(1000, 50)


def test_each_stream_is_tested_from_its_own_baseline_up() -> None:
    aims = aims_for(OLD, AUDITED, GateSettings())
    assert [*aims.streams] == [*STREAMS]
    for stream, terms in aims.streams.items():
        assert terms.baseline.k / terms.baseline.n < terms.p0
        assert terms.p1 == pytest.approx(terms.p0 + getattr(Margins(), stream))
    assert sum(terms.alpha for terms in aims.streams.values()) == pytest.approx(GateSettings().alpha)


def test_slow_is_what_one_answer_of_the_old_version_in_twenty_was_at_most() -> None:
    aims = aims_for(OLD, AUDITED, GateSettings())
    tally = tallies_of(OLD, aims.slow_edge)["slow"]
    assert 0 < tally.k / tally.n <= 0.05
    assert tallies_of(OLD, aims.slow_edge - 1)["slow"].k > 0.05 * tally.n


def test_answers_that_are_compared_need_a_baseline() -> None:
    with pytest.raises(FoothillError, match="has 199 audits; the gate needs 200"):
        aims_for(OLD, Tally(199, 5), GateSettings())
    assert "disagreeing" not in aims_for(OLD, Tally(), GateSettings(), compared=False).streams
    with pytest.raises(FoothillError, match="seen in 0 runs; the gate needs 200"):
        aims_for(Counts(), Tally(), GateSettings(), compared=False)


def test_measurements_stand_in_for_audits_that_are_too_few() -> None:
    measured = Tally(1000, 40)
    few = aims_for(OLD, Tally(199, 50), GateSettings(), measured=measured)
    assert (few.source, few.streams["disagreeing"].baseline) == ("measurements", measured)
    many = aims_for(OLD, Tally(200, 50), GateSettings(), measured=measured)
    assert (many.source, many.streams["disagreeing"].baseline) == ("audits", Tally(200, 50))


def test_audits_alone_judge_where_nothing_was_counted() -> None:
    assert [*aims_for(Counts(), AUDITED, GateSettings()).streams] == ["disagreeing"]


def test_a_version_that_always_disagrees_is_no_baseline() -> None:
    with pytest.raises(FoothillError, match="198 of 200 audits: no gate"):
        aims_for(OLD, Tally(200, 198), GateSettings())


def test_one_that_need_not_is_left_out_without() -> None:
    few = Version().counts(random.Random(1), 5000, 100)
    assert "strained" not in aims_for(few, AUDITED, GateSettings()).streams


def test_a_version_so_bad_that_none_could_be_worse_is_no_baseline() -> None:
    bad = Version(doubtful=0.95).counts(random.Random(1), 5000, 1000)
    assert "doubtful" not in aims_for(bad, AUDITED, GateSettings()).streams
    assert "certain" in aims_for(bad, AUDITED, GateSettings()).streams


def test_no_version_is_held_to_never_failing() -> None:
    flawless = Version(failed=0.0).counts(random.Random(1), 100_000, 0)
    assert aims_for(flawless, AUDITED, GateSettings()).streams["failed"].p0 == 0.001
