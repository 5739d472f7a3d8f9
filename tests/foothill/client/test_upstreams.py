"""The rules of falling back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.leases import Lease, LeasedNode
from foothill.client.upstreams import Health, Lost, Reply, Upstream, judge, order, time_for

NODE = Upstream("http://a:1", 20.0, node="fra")
LEASE = Lease(
    "digits",
    (LeasedNode("a", "http://a:1", "eu", 5.0), LeasedNode("b", "http://b:1", "us", 80.0)),
    "http://cloud:1",
    30.0,
)


@pytest.mark.parametrize(
    ("outcome", "code", "step"),
    [
        (Reply(200, {}, b"", 1.0), "", "answer"),
        (Lost("refused", ""), "unavailable", "next"),
        (Lost("late", ""), "deadline_exceeded", "next"),
        (Lost("cut", "", reused=True), "unavailable", "again"),
        (Lost("cut", "", reused=False), "unavailable", "next"),
        (Reply(503, {}, b"", 1.0), "overloaded", "next"),
        (Reply(502, {}, b"", 1.0), "upstream_failed", "next"),
        (Reply(504, {}, b"", 1.0), "deadline_exceeded", "next"),
        (Reply(404, {}, b"", 1.0), "model_not_found", "next"),
        (Reply(500, {}, b"", 1.0), "internal", "fail"),
        (Reply(400, {}, b"", 1.0), "bad_image", "fail"),
        (Reply(403, {}, b"", 1.0), "residency_denied", "fail"),
        (Reply(429, {}, b"", 1.0), "rate_limited", "fail"),
        (Reply(503, {}, b"", 1.0), "code_of_tomorrow", "next"),
        (Reply(418, {}, b"", 1.0), "code_of_tomorrow", "fail"),
    ],
)
def test_each_outcome_has_one_step(outcome: Reply | Lost, code: str, step: str) -> None:
    assert judge(outcome, code, NODE) == step


def test_only_a_leased_node_may_not_know_the_model() -> None:
    assert judge(Reply(404, {}, b"", 1.0), "model_not_found", Upstream("http://cloud:1")) == "fail"


def test_the_cloud_comes_after_reachable_nodes_and_before_those_that_just_failed() -> None:
    health = Health()
    assert [one.url for one in order(LEASE, health, 0.0)] == ["http://a:1", "http://b:1", "http://cloud:1"]
    health.failed("http://a:1", 0.0)
    assert [one.url for one in order(LEASE, health, 1.0)] == ["http://b:1", "http://cloud:1", "http://a:1"]
    assert [one.url for one in order(LEASE, health, 5.1)] == ["http://a:1", "http://b:1", "http://cloud:1"]
    health.failed("http://a:1", 6.0)
    health.answered("http://a:1")
    assert order(LEASE, health, 6.1)[0].url == "http://a:1"


@given(st.floats(0.001, 600.0), st.floats(0.0, 400.0), st.booleans())
def test_an_attempt_never_takes_more_than_is_left(left_s: float, rtt_ms: float, last: bool) -> None:
    timeout_s, connect_s, told_ms = time_for(left_s, Upstream("http://a:1", rtt_ms), last=last)
    assert 0 < timeout_s <= left_s
    assert 0 < connect_s <= timeout_s
    assert 0 < told_ms <= timeout_s * 1000.0


@given(st.floats(1.01, 600.0))
def test_an_attempt_leaves_time_for_the_next(left_s: float) -> None:
    assert time_for(left_s, NODE, last=False)[0] < left_s
    assert time_for(left_s, NODE, last=True)[0] == left_s
