"""Which trace a request belongs to: `traceparent` of W3C Trace Context, https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 0x01
_SPACE = 1 << 64


class Span(NamedTuple):
    """One span's ids, in lower-case hex, and whether whoever began it records it."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: str) -> Span | None:
    """None for what names no span. Later versions may say more behind a '-', version 00 may not."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN or (version == "00" and more is not None):
        return None
    return Span(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def format_traceparent(span: Span) -> str:
    return f"00-{span.trace_id}-{span.span_id}-{_SAMPLED if span.sampled else 0:02x}"


def trace_id_of(request_id: str) -> str:
    """The trace of a request whose caller has begun none: its id where that has the form, else its SHA-256's."""
    if _TRACE_ID.fullmatch(request_id) and request_id != _NO_TRACE:
        return request_id
    return hashlib.sha256(request_id.encode()).hexdigest()[:32]


def told_traceparent(sent: str, request_id: str) -> str:
    """What the caller is told of a request that nobody here records: its own header, or that of a span by the request's
    id, not sampled."""
    if parse_traceparent(sent) is not None:
        return sent
    trace_id = trace_id_of(request_id)
    return format_traceparent(Span(trace_id, _first(trace_id), False))


def own_traceparent(request_id: str) -> str:
    """As `told_traceparent`, of an id that this server has made up: 32 random hex digits."""
    return f"00-{request_id}-{request_id[:16]}-00"


def is_drawn(trace_id: str, share: float) -> bool:
    """Whether this trace is one of the share that is recorded: by the low 64 bits of its id, so that all who draw the
    same share draw the same traces (OpenTelemetry's TraceIdRatioBased sampler)."""
    return int(trace_id[16:], 16) < round(share * _SPACE)


def _first(trace_id: str) -> str:
    span_id = trace_id[:16]
    return span_id if span_id != _NO_SPAN else trace_id[16:]
