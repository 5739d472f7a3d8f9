"""The figures of the report, on outcomes small enough to count by hand."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foothill.demo.figures import (
    Quantiles,
    accuracy,
    build_report,
    distribution,
    kept_and_differing,
    latency,
    percentile,
)
from foothill.demo.traffic import Outcome
from tests.foothill.demo.made_up import STORY, outcomes


def outcome(at: int, tier: str, label: str, *, truth: str = "1", total_ms: float = 10.0, **more: object) -> Outcome:
    made = Outcome(at, True, "jpeg", "eastus", truth, 200, "", total_ms, label=label, tier=tier, node=tier)
    return msgspec.structs.replace(made, **more)


HYBRID = [
    outcome(0, "edge", "1", total_ms=10.0, reason="confident", phases_ms={"network": 8.0, "infer": 1.0}),
    outcome(1, "edge", "2", total_ms=20.0, reason="confident", phases_ms={"network": 18.0, "infer": 2.0}),
    outcome(2, "cloud", "1", total_ms=90.0, reason="doubtful", leased=False, phases_ms={"escalate": 80.0}),
    outcome(3, "edge", "1", total_ms=30.0, reason="cloud-failed", degraded=True),
    outcome(4, "cloud", "1", total_ms=70.0, reason="no-edge"),
]
CLOUD = [outcome(at, "cloud", "1", total_ms=100.0 + at) for at in range(5)]
EDGE = [outcome(at, "edge", "2" if at < 2 else "1") for at in range(5)]


def test_shares_and_counts_are_over_all_requests() -> None:
    report = build_report(HYBRID, EDGE, CLOUD, STORY)
    assert report.requests == 5
    assert report.failed == 0
    assert report.edge_share == 3 / 5
    # "no-edge" is a fall-back to the cloud, not an escalation.
    assert report.escalated == 1
    assert report.degraded == 1
    assert report.disagreement == 1 / 5
    assert report.disagreement_at_edge == 1 / 3
    assert report.disagreement_upper > report.disagreement
    assert report.accuracy.edge == 3 / 5
    assert report.accuracy.hybrid == 4 / 5
    assert report.accuracy.cloud == 1.0
    assert report.served_by == {"edge": 3, "cloud": 2}
    assert report.latency_ms.leased.n == 4
    assert report.latency_ms.proxied.p50 == 90.0
    assert report.latency_ms.hybrid.phases["infer"] == Quantiles(1.5, 1.95, 1.99, 2)
    assert report.latency_ms.hybrid.phases["escalate"].n == 1


def test_the_cloud_s_answers_are_matched_by_call_not_by_order() -> None:
    kept, differing = kept_and_differing(HYBRID, reversed(CLOUD))
    assert (kept, differing) == (3, 1)


def test_an_escalated_answer_never_counts_as_disagreement() -> None:
    cloud = [msgspec.structs.replace(one, label="7") for one in CLOUD]
    assert kept_and_differing([HYBRID[2]], cloud) == (0, 0)


def test_failures_of_every_pass_and_step_count_and_are_never_right() -> None:
    failed = msgspec.structs.replace(HYBRID[0], status=503, error="overloaded", label="", tier="")
    report = build_report([failed, *HYBRID[1:]], EDGE, CLOUD, msgspec.structs.replace(STORY, failed_elsewhere=2))
    assert report.failed == 3
    assert report.latency_ms.hybrid.n == 4
    assert report.edge_share == 2 / 5
    assert accuracy([failed]) == 0.0


def test_the_report_has_the_promised_keys() -> None:
    report = msgspec.to_builtins(build_report(outcomes("hybrid"), outcomes("edge"), outcomes("cloud"), STORY))
    for path in (
        *("requests", "failed", "edge_share", "escalated", "degraded", "epsilon", "delta", "disagreement"),
        *("disagreement_at_edge", "accuracy.edge", "accuracy.hybrid", "accuracy.cloud"),
        *(
            f"latency_ms.{way}.{p}"
            for way in ("hybrid", "leased", "proxied", "all_cloud")
            for p in ("p50", "p95", "p99")
        ),
        *(f"latency_ms.hybrid.phases.{phase}.p99" for phase in ("network", "queue", "decode", "infer", "escalate")),
        *("bytes_off_site.hybrid", "bytes_off_site.all_cloud"),
        *(f"models.{model}.{field}" for model in ("teacher", "student_int8") for field in ("bytes", "ms")),
        *("rollout.nodes", "rollout.seconds"),
        *(f"bad_rollout.{key}" for key in ("stopped_stage", "exposed_nodes", "reverted_nodes", "seconds")),
    ):
        value = report
        for key in path.split("."):
            value = value[key]
        assert isinstance(value, int | float), path


def test_nothing_at_all_gives_zeros() -> None:
    report = build_report([], [], [], STORY)
    assert (report.requests, report.edge_share, report.disagreement) == (0, 0.0, 0.0)
    assert latency([]).p99 == 0.0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_numpy_s(values: list[float], percent: float) -> None:
    assert percentile(sorted(values), percent) == pytest.approx(float(np.percentile(values, percent)), abs=1e-6)


@given(st.lists(st.floats(0.001, 5000), max_size=200), st.lists(st.floats(0.001, 5000), max_size=200))
def test_every_answer_is_in_one_bar(ours: list[float], theirs: list[float]) -> None:
    spread = distribution(
        [outcome(at, "edge", "1", total_ms=value) for at, value in enumerate(ours)],
        [outcome(at, "cloud", "1", total_ms=value) for at, value in enumerate(theirs)],
    )
    assert sum(spread.hybrid) == len(ours)
    assert sum(spread.all_cloud) == len(theirs)
    assert len(spread.upto_ms) == len(spread.hybrid) == len(spread.all_cloud) <= 15
    assert list(spread.upto_ms) == sorted(spread.upto_ms)
