"""The figures of the demo's report, computed from outcomes. Pure; shares are of 1, times in ms unless named so."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from contracts.risk.binomial import upper_bound
from contracts.timing import PHASES
from foothill.demo.traffic import Outcome

_CLIENT_PHASES = ("lease", "retry")


class Quantiles(msgspec.Struct, frozen=True):
    """Of `n` values; zeros when there were none."""

    p50: float
    p95: float
    p99: float
    n: int


class Latency(msgspec.Struct, frozen=True):
    """End to end, and each phase over the requests that went through it."""

    p50: float
    p95: float
    p99: float
    n: int
    phases: dict[str, Quantiles]


class Latencies(msgspec.Struct, frozen=True):
    hybrid: Latency
    leased: Latency
    proxied: Latency
    all_cloud: Latency


class Accuracy(msgspec.Struct, frozen=True):
    """Shares of answers that name the true label: escalation never, as it runs, cloud alone."""

    edge: float
    hybrid: float
    cloud: float


class OffSite(msgspec.Struct, frozen=True):
    """Bytes between this fleet's edge and the cloud tier, both ways; audits included."""

    hybrid: int
    all_cloud: int


class ModelSize(msgspec.Struct, frozen=True):
    """Of one artifact: its file, and the median time of one inference at batch 1."""

    bytes: int
    ms: float


class Models(msgspec.Struct, frozen=True):
    teacher: ModelSize
    student_int8: ModelSize


class RolloutFigures(msgspec.Struct, frozen=True):
    """The first rollout: nodes that confirmed, and seconds from its start to the last of them."""

    nodes: int
    seconds: float


class BadRollout(msgspec.Struct, frozen=True):
    """The rollout that must fail: `stopped_stage` counts from 1; seconds from its start to the last node reverted.

    `seconds_to_decision`: from its start to the stop; `seconds_to_revert`: from the stop to the last node back.
    """

    stopped_stage: int
    exposed_nodes: int
    reverted_nodes: int
    seconds: float
    seconds_to_decision: float = 0.0
    seconds_to_revert: float = 0.0
    reason: str = ""
    audits: int = 0


class Distribution(msgspec.Struct, frozen=True):
    """How many answers took up to each of `upto_ms` (and more than the one before)."""

    upto_ms: tuple[float, ...]
    hybrid: tuple[int, ...]
    all_cloud: tuple[int, ...]


class Story(msgspec.Struct, frozen=True):
    """What the outcomes do not say. `failed_elsewhere`: failed requests of every other step of the demo."""

    epsilon: float
    delta: float
    bytes_off_site: OffSite
    models: Models
    rollout: RolloutFigures
    bad_rollout: BadRollout
    failed_elsewhere: int = 0
    countries: int = 0
    clients: int = 0
    wan: bool = True
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """The demo's report. `escalated` and `degraded` are counts; `disagreement` is a share of all requests (kept at the
    edge and unlike the cloud's answer), `disagreement_at_edge` of those kept; `disagreement_upper` its upper bound at
    confidence 1 - `delta`, treating requests as independent."""

    requests: int
    failed: int
    edge_share: float
    escalated: int
    degraded: int
    epsilon: float
    delta: float
    disagreement: float
    disagreement_upper: float
    disagreement_at_edge: float
    accuracy: Accuracy
    latency_ms: Latencies
    bytes_off_site: OffSite
    models: Models
    rollout: RolloutFigures
    bad_rollout: BadRollout
    served_by: dict[str, int]
    reasons: dict[str, int]
    distribution_ms: Distribution
    countries: int
    clients: int
    wan: bool
    seconds: float


def build_report(hybrid: Sequence[Outcome], edge: Sequence[Outcome], cloud: Sequence[Outcome], story: Story) -> Report:
    """`hybrid`, `edge` and `cloud` are outcomes of the same calls on the three ways, in any order."""
    answered = [outcome for outcome in hybrid if outcome.ok]
    kept, differing = kept_and_differing(hybrid, cloud)
    failed = sum(not outcome.ok for outcome in (*hybrid, *edge, *cloud)) + story.failed_elsewhere
    return Report(
        requests=len(hybrid),
        failed=failed,
        edge_share=_share(sum(outcome.tier == "edge" for outcome in answered), len(hybrid)),
        escalated=sum(outcome.escalated for outcome in answered),
        degraded=sum(outcome.degraded for outcome in answered),
        epsilon=story.epsilon,
        delta=story.delta,
        disagreement=_share(differing, len(hybrid)),
        disagreement_upper=upper_bound(differing, len(hybrid), story.delta) if hybrid else 0.0,
        disagreement_at_edge=_share(differing, kept),
        accuracy=Accuracy(edge=accuracy(edge), hybrid=accuracy(hybrid), cloud=accuracy(cloud)),
        latency_ms=Latencies(
            hybrid=latency(hybrid),
            leased=latency(outcome for outcome in hybrid if outcome.leased),
            proxied=latency(outcome for outcome in hybrid if not outcome.leased),
            all_cloud=latency(cloud),
        ),
        bytes_off_site=story.bytes_off_site,
        models=story.models,
        rollout=story.rollout,
        bad_rollout=story.bad_rollout,
        served_by=dict(Counter(outcome.node for outcome in answered).most_common()),
        reasons=dict(Counter(outcome.reason for outcome in answered).most_common()),
        distribution_ms=distribution(hybrid, cloud),
        countries=story.countries,
        clients=story.clients,
        wan=story.wan,
        seconds=story.seconds,
    )


def kept_and_differing(hybrid: Iterable[Outcome], cloud: Iterable[Outcome]) -> tuple[int, int]:
    """How many requests the edge answered, and for how many of them the cloud's answer to the same call differs."""
    by_call = {outcome.at: outcome.label for outcome in cloud if outcome.ok}
    kept = [outcome for outcome in hybrid if outcome.ok and outcome.tier == "edge"]
    differing = sum(outcome.label != by_call[outcome.at] for outcome in kept if outcome.at in by_call)
    return len(kept), differing


def accuracy(outcomes: Sequence[Outcome]) -> float:
    """Over all requests: a failed one is not right."""
    return _share(sum(outcome.ok and outcome.label == outcome.truth for outcome in outcomes), len(outcomes))


def latency(outcomes: Iterable[Outcome]) -> Latency:
    """Of the answered requests."""
    answered = [outcome for outcome in outcomes if outcome.ok]
    phases: dict[str, list[float]] = defaultdict(list)
    for outcome in answered:
        for phase, milliseconds in outcome.phases_ms.items():
            phases[phase].append(milliseconds)
    whole = quantiles([outcome.total_ms for outcome in answered])
    known = {phase: quantiles(phases[phase]) for phase in (*_CLIENT_PHASES, *PHASES) if phase in phases}
    return Latency(whole.p50, whole.p95, whole.p99, whole.n, known)


def quantiles(values: Sequence[float]) -> Quantiles:
    ordered = sorted(values)
    return Quantiles(percentile(ordered, 50), percentile(ordered, 95), percentile(ordered, 99), len(ordered))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in rising order, interpolated linearly between the two nearest (numpy's default); 0 for none."""
    if not ordered:
        return 0.0
    rank = (len(ordered) - 1) * percent / 100.0
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def distribution(hybrid: Iterable[Outcome], cloud: Iterable[Outcome], *, bars: int = 14) -> Distribution:
    """Both passes over the same steps, which reach from 0 to the slower one's 99th percentile; the last takes more."""
    ours = sorted(outcome.total_ms for outcome in hybrid if outcome.ok)
    theirs = sorted(outcome.total_ms for outcome in cloud if outcome.ok)
    longest = max(percentile(ours, 99), percentile(theirs, 99), 1.0)
    step = _round_step(longest / bars)
    upto = tuple(step * (number + 1) for number in range(math.ceil(longest / step)))
    return Distribution(upto, _counts(ours, step, len(upto)), _counts(theirs, step, len(upto)))


def _counts(values: Iterable[float], step: float, bars: int) -> tuple[int, ...]:
    counted = Counter(min(int(value // step), bars - 1) for value in values)
    return tuple(counted[bar] for bar in range(bars))


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= step)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
