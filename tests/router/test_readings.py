"""Answers of a known form: the times as any parser reads them, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from contracts import headers
from contracts.escalation import Verdict
from contracts.timing import PHASES, parse_server_timing
from router.readings import Reading, phases_ms
from runtime.links.http.reply_forms import Form

TOLD = {headers.SERVER_TIMING: "x", headers.CONFIDENCE: "0.5", headers.LOAD: "in_flight=1", "Content-Length": "0"}
TIMES = "infer;dur=1.5, total;dur=2.5"
HEAD = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in TOLD.items()) + "\r\n"


def reading() -> Reading:
    return Reading(Form(HEAD.encode(), CIMultiDict(TOLD)))


def values(timing: str, confidence: str = "0.5") -> tuple[bytes, ...]:
    return timing.encode(), confidence.encode(), b"in_flight=1"


own = st.lists(st.sampled_from([phase for phase in PHASES if phase != "network"]), unique=True, min_size=1, max_size=6)


@given(st.lists(st.tuples(own, st.floats(0, 1e6)), min_size=1, max_size=5))
def test_times_are_read_as_the_parser_reads_them(drawn: list[tuple[list[str], float]]) -> None:
    one = reading()
    for phases, ms in drawn:
        written = ", ".join(f"{phase};dur={ms:.3f}" for phase in [*phases, "total"])
        times = one.read(values(written))
        parsed = parse_server_timing(written)
        assert times is not None
        told = one.told(Verdict("accept", "confident")).phases
        read = [column for (column,) in phases_ms([times.wrote])]
        assert dict(zip(told, read, strict=True)) | {"total": times.total_ms} == parsed
        assert f"{times.wrote}, total;dur={ms:.3f}" == written


@pytest.mark.parametrize(
    "timing",
    ["x", "total;dur=1", "infer;dur=1, total", "infer;dur=1", "total;dur=1, infer;dur=1", "infer;dur=1,total;dur=2",
     "network;dur=1, total;dur=2", "infer;dur=1, infer;dur=1, total;dur=2", "infer;dur=-1, total;dur=2",
     "infer;dur=1e9, total;dur=2", "infer;dur=.5, total;dur=2", "made-up;dur=1, total;dur=2"],
)  # fmt: skip
def test_times_that_no_node_writes_are_left_to_the_long_way(timing: str) -> None:
    assert reading().read(values(timing)) is None


@given(st.text(st.sampled_from("0123456789.,;=durinfetoal "), max_size=40))
def test_anything_like_times_is_read_rightly_or_not_at_all(noise: str) -> None:
    one = reading()
    assert one.read(values(TIMES)) is not None
    for timing in (noise, f"infer;dur={noise}, total;dur=2.5"):
        try:
            times = one.read(values(timing))
        except ValueError:
            continue
        if times is not None:
            assert parse_server_timing(timing)["total"] == times.total_ms


def test_a_confidence_that_is_no_number_is_not_read() -> None:
    with pytest.raises(ValueError, match="sure"):
        reading().read(values(TIMES, "sure"))
    said = reading().read(values(TIMES, "0.25"))
    assert said is not None
    assert (said.confidence, said.line) == (0.25, "Foothill-Confidence: 0.25\r\n")


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=2, max_size=2), min_size=1, max_size=20))
def test_many_times_are_read_at_once_phase_by_phase(drawn: list[list[float]]) -> None:
    written = [f"queue;dur={queue:.3f}, infer;dur={infer:.3f}" for queue, infer in drawn]
    read = phases_ms(written)
    assert [list(column) for column in read] == [[round(ms, 3) for ms in column] for column in zip(*drawn, strict=True)]


@pytest.mark.parametrize("odd", ["infer;dur=, queue;dur=1", "infer;dur=1", "a;dur=1.2.3, b;dur=1"])
def test_times_that_are_written_otherwise_are_told_apart(odd: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|as many times"):
        phases_ms(["queue;dur=1.000, infer;dur=2.000", odd])
