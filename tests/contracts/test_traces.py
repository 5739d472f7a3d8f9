"""Traces: what names a span, which trace a request without one belongs to, and who is drawn."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.traces import (
    Span,
    format_traceparent,
    is_drawn,
    own_traceparent,
    parse_traceparent,
    told_traceparent,
    trace_id_of,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ids = st.text(string.ascii_letters + string.digits + "_.:-", min_size=1, max_size=128)


@pytest.mark.parametrize(
    ("value", "span"),
    [
        (f"00-{TRACE}-{SPAN}-01", Span(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", Span(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", Span(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-is", Span(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-what-the-future-is", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("", None),
    ],
)
def test_what_names_a_span(value: str, span: Span | None) -> None:
    assert parse_traceparent(value) == span


@given(st.booleans())
def test_what_is_written_is_read(sampled: bool) -> None:
    span = Span(TRACE, SPAN, sampled)
    assert parse_traceparent(format_traceparent(span)) == span


@given(ids, st.sampled_from(["", "00-abc-def-01", f"ff-{TRACE}-{SPAN}-01"]))
def test_a_request_without_a_trace_has_one_of_its_own_that_nobody_records(request_id: str, sent: str) -> None:
    told = told_traceparent(sent, request_id)
    span = parse_traceparent(told)
    assert span is not None
    assert (span.trace_id, span.sampled) == (trace_id_of(request_id), False)
    assert told == told_traceparent("", request_id)


@given(st.binary(min_size=16, max_size=16).map(bytes.hex).filter(lambda text: int(text[:16], 16)))
def test_ids_of_the_servers_own_are_their_trace(request_id: str) -> None:
    assert trace_id_of(request_id) == request_id
    assert own_traceparent(request_id) == told_traceparent("", request_id)


def test_a_callers_trace_is_told_as_it_came() -> None:
    for sent in (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"):
        assert told_traceparent(sent, "r1") == sent


@given(st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_who_is_drawn_for_a_share_is_drawn_for_a_larger_one(traces: list[str], one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert not any(is_drawn(trace, small) and not is_drawn(trace, large) for trace in traces)
    assert all(is_drawn(trace, 1.0) and not is_drawn(trace, 0.0) for trace in traces)


def test_a_share_is_a_share() -> None:
    drawn = sum(is_drawn(trace_id_of(f"r{number}"), 0.1) for number in range(20_000))
    assert 1_800 < drawn < 2_200
