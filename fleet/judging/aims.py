"""What a successor is held to: a test for each stream of evidence, fixed before the first of it is seen."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

from contracts.errors import FoothillError
from contracts.quality import EDGES_MS, Counts
from contracts.risk import binomial
from contracts.risk.sequential import Sprt

Stream = Literal["failed", "slow", "disagreeing", "doubtful", "certain", "strained"]
"""Of runs those that failed; of sound runs those slower than 95 % of the old version's were; of audits those in which
the cloud says otherwise; of answers those below the threshold, and those above it: a version that is sure where the old
one was not has drifted as well; of looks at the machines those that found them short of something."""
STREAMS: tuple[Stream, ...] = get_args(Stream)
NEEDED: frozenset[Stream] = frozenset(("failed", "slow", "disagreeing"))
"""Those that must have accepted, as far as they are tested. The others can only reject: their first evidence may be
slow to come."""
Source = Literal["audits", "measurements"]
SMALLEST_P0 = 0.001
"""No version is held to never failing: a rate of zero cannot be tested against."""
_SLOW_SHARE = 0.05
Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]


class Tally(msgspec.Struct, frozen=True):
    """`k` of `n`."""

    n: int = 0
    k: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(self.n + other.n, self.k + other.k)


class Margins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By how much worse a rate counts as bad, of each stream."""

    failed: Share = 0.01
    slow: Share = 0.10
    disagreeing: Share = 0.03
    doubtful: Share = 0.15
    certain: Share = 0.15
    strained: Share = 0.20


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The errors of the whole gate. A version whose every rate is at most the old one's is stopped with probability at
    most `alpha` + `baseline_delta`; one that is worse than p0 by a stream's margin passes that stream with probability
    at most `beta`. Each stream has its share of alpha and baseline_delta (union bound).

    p0 of a stream is the upper Clopper-Pearson bound of the old version's rate, p1 is p0 and the margin.
    `min_baseline`: trials of the old version below which a stream tests nothing; for too few audits the version's
    compile-time measurement stands in, and the sum is only as good as those samples are like live requests.
    """

    alpha: Share = 0.01
    beta: Share = 0.0005
    baseline_delta: Share = 0.05
    margins: Margins = Margins()
    min_baseline: Annotated[int, msgspec.Meta(ge=1)] = 200


class Terms(msgspec.Struct, frozen=True):
    """One stream's test, and what the old version's rate was seen to be."""

    p0: float
    p1: float
    alpha: float
    beta: float
    baseline: Tally

    @property
    def test(self) -> Sprt:
        return Sprt(self.p0, self.p1, self.alpha, self.beta)


class Aims(msgspec.Struct, frozen=True):
    """`streams`: those that can be tested. `slow_edge`: index into `EDGES_MS` of what counts as slow. `source`: where
    the baseline of "disagreeing" comes from. `good_stopped` bounds the probability that a version as good as the old
    one is stopped."""

    streams: dict[Stream, Terms]
    slow_edge: int
    source: Source = "audits"
    good_stopped: float = 0.0


def aims_for(
    old: Counts, audited: Tally, settings: GateSettings, *, measured: Tally | None = None, compared: bool = True
) -> Aims:
    """What the successor of a version is held to, that has counted `old` and disagreed with the cloud as `audited`, or,
    on the compiler's test samples, as `measured`. `compared`: whether its answers will be compared with the cloud's.

    Raises FoothillError `conflict` without a baseline of what must accept: a gate would be a guess.
    """
    slow_edge = _slow_edge(old)
    compiled = measured if measured is not None and audited.n < settings.min_baseline else None
    tallies = tallies_of(old, slow_edge) | {"disagreeing": compiled or audited}
    share = len(STREAMS)
    streams = {
        stream: terms
        for stream in STREAMS
        if (terms := _terms(tallies[stream], getattr(settings.margins, stream), settings, share)) is not None
    }
    if compared and "disagreeing" not in streams:
        raise _no_baseline(audited, settings)
    if not NEEDED & streams.keys():
        raise FoothillError(
            "conflict",
            f"The version in service has been seen in {old.runs} runs; the gate needs {settings.min_baseline}. Let it "
            f'serve longer, or start with gate "health".',
        )
    return Aims(streams, slow_edge, "measurements" if compiled else "audits", settings.alpha + settings.baseline_delta)


def _no_baseline(audited: Tally, settings: GateSettings) -> FoothillError:
    if audited.n >= settings.min_baseline:
        said = f"differs from the cloud model in {audited.k} of {audited.n} audits: no gate can find a worse one"
        return FoothillError("conflict", f'The version in service {said}. Start with gate "health".')
    return FoothillError(
        "conflict",
        f"The version in service has {audited.n} audits; the gate needs {settings.min_baseline}, or measurements that "
        f'name its agreement with the cloud model. Let it serve longer, publish them, or start with gate "health".',
    )


def tallies_of(counts: Counts, slow_edge: int) -> dict[Stream, Tally]:
    """All streams but that of audits."""
    return {
        "failed": Tally(counts.runs, counts.failed),
        "slow": Tally(sum(counts.latency), counts.slower_than(slow_edge)),
        "doubtful": Tally(counts.judged, counts.doubtful),
        "certain": Tally(counts.judged, counts.judged - counts.doubtful),
        "strained": Tally(counts.looks, counts.strained),
    }


def _slow_edge(old: Counts) -> int:
    """The first edge above which at most one run of the old version in twenty lies."""
    runs = sum(old.latency)
    edges = range(len(EDGES_MS))
    return next((edge for edge in edges if old.slower_than(edge) <= _SLOW_SHARE * runs), len(EDGES_MS) - 1)


def _terms(old: Tally, margin: float, settings: GateSettings, share: int) -> Terms | None:
    """None where too little is known, or the old version is so bad that none could be worse by the margin."""
    if old.n < settings.min_baseline:
        return None
    p0 = max(SMALLEST_P0, binomial.upper_bound(old.k, old.n, settings.baseline_delta / share))
    p1 = p0 + margin
    return Terms(p0, p1, settings.alpha / share, settings.beta, old) if p1 < 1.0 else None
