"""The rule that keeps an edge answer or sends the request on: over every certificate, confidence and policy."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from contracts.escalation import Policy, decide
from contracts.messages import Certificate

certificates = st.one_of(
    st.none(),
    st.builds(
        Certificate,
        stratum=st.just("s"),
        model=st.just("digits"),
        threshold=st.floats(0, 1.5),
        epsilon=st.just(0.02),
        delta=st.just(0.05),
        n=st.just(100),
        state=st.sampled_from(["live", "revoked"]),
        sequence=st.just(1),
        issued_at_s=st.just(0.0),
    ),
)
confidences = st.one_of(st.none(), st.floats(0, 1), st.just(math.nan), st.just(math.inf))
policies = st.builds(
    Policy,
    asked=st.sampled_from(["auto", "never", "always"]),
    cloud_ms=st.floats(0, 1000),
    cloud=st.booleans(),
)
times = st.floats(0, 2000)


@given(confidences, certificates, times, policies)
def test_nothing_escalates_without_a_cloud_or_time(
    confidence: float | None, certificate: Certificate | None, left_ms: float, policy: Policy
) -> None:
    verdict = decide(confidence, certificate, left_ms, policy)
    if not policy.cloud or left_ms <= policy.cloud_ms:
        assert verdict.action == "accept"


@given(confidences, certificates, times, policies)
def test_degraded_means_the_rule_wanted_the_cloud_and_could_not(
    confidence: float | None, certificate: Certificate | None, left_ms: float, policy: Policy
) -> None:
    verdict = decide(confidence, certificate, left_ms, policy)
    free = decide(confidence, certificate, math.inf, Policy(policy.asked))
    assert verdict.degraded == (free.action == "escalate" and verdict.action == "accept")
    assert verdict.degraded == (verdict.reason in ("no-cloud", "no-time"))
    if not verdict.degraded:
        assert verdict == free


@given(confidences, certificates, times, policies)
def test_an_accepted_answer_is_certified_only_under_a_live_certificate(
    confidence: float | None, certificate: Certificate | None, left_ms: float, policy: Policy
) -> None:
    verdict = decide(confidence, certificate, left_ms, policy)
    if verdict.action == "accept" and verdict.certified:
        assert certificate is not None
        assert confidence is not None
        assert certificate.state == "live"
        assert confidence >= certificate.threshold
        assert policy.asked == "auto"


@given(confidences, certificates, times, policies)
def test_no_answer_is_both_degraded_and_certified(
    confidence: float | None, certificate: Certificate | None, left_ms: float, policy: Policy
) -> None:
    verdict = decide(confidence, certificate, left_ms, policy)
    assert not (verdict.degraded and verdict.certified)
    if certificate is None and policy.asked != "always":
        assert not verdict.certified


@given(st.floats(0, 1), certificates)
def test_what_goes_to_the_cloud_by_certificate_or_wish_cannot_break_the_promise(
    confidence: float, certificate: Certificate | None
) -> None:
    for asked in ("auto", "always"):
        verdict = decide(confidence, certificate, math.inf, Policy(asked))
        if verdict.action == "escalate":
            assert verdict.certified == (verdict.reason != "uncertified")


@given(confidences, certificates, times, policies)
def test_a_callers_wish_comes_first(
    confidence: float | None, certificate: Certificate | None, left_ms: float, policy: Policy
) -> None:
    verdict = decide(confidence, certificate, left_ms, policy)
    if policy.asked == "never":
        assert (verdict.action, verdict.reason) == ("accept", "asked-never")
    if policy.asked == "always" and policy.cloud and left_ms > policy.cloud_ms:
        assert (verdict.action, verdict.reason) == ("escalate", "asked-always")


@given(st.floats(0, 1), st.floats(0, 1), certificates)
def test_more_confidence_never_escalates_more(low: float, high: float, certificate: Certificate | None) -> None:
    low, high = sorted((low, high))
    free = Policy()
    if decide(low, certificate, math.inf, free).action == "accept":
        assert decide(high, certificate, math.inf, free).action == "accept"


@given(st.floats(0, 1), times)
def test_a_revocation_and_a_missing_certificate_escalate_everything(confidence: float, left_ms: float) -> None:
    revoked = Certificate("s", "digits", 0.0, 0.02, 0.05, 100, "revoked", 2, 0.0)
    policy = Policy(cloud_ms=-1.0)
    assert decide(confidence, revoked, left_ms, policy).action == "escalate"
    assert decide(confidence, None, left_ms, policy).reason == "uncertified"
