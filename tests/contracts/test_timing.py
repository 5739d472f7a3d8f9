"""Server-Timing: what is written is read back, and nothing else does any harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.timing import PHASES, TOTAL, across_hop, format_server_timing, parse_server_timing

milliseconds = st.floats(0, 1e6)
phases = st.dictionaries(st.sampled_from([*PHASES, TOTAL]), milliseconds)


@given(phases)
def test_what_is_written_is_read_back(told: dict[str, float]) -> None:
    read = parse_server_timing(format_server_timing(told))
    assert list(read) == list(told)
    assert read == pytest.approx(told, abs=0.0005)


@given(st.text(max_size=3000))
def test_any_text_is_phases_and_no_failure(text: str) -> None:
    assert all(value >= 0 for value in parse_server_timing(text).values())


def test_entries_out_of_form_are_dropped() -> None:
    assert parse_server_timing('a;dur=1, b;desc="x", c;dur=-1, d;dur=nan, e;dur=1e9, f;dur=2') == {"a": 1.0, "f": 2.0}
    assert parse_server_timing(None) == {}


@given(st.integers(1, 40))
def test_a_header_too_long_loses_whole_entries_and_no_digits(width: int) -> None:
    told = {f"phase-{number}-{'x' * (width % 20)}": 123456.789 for number in range(80)}
    read = parse_server_timing(format_server_timing(told))
    assert 0 < len(read) < 80
    assert set(read.values()) == {123456.789}


@given(hop_ms=milliseconds, upstream=phases)
def test_a_hop_adds_the_network_and_takes_the_total_away(hop_ms: float, upstream: dict[str, float]) -> None:
    crossed = across_hop(hop_ms, upstream)
    assert TOTAL not in crossed
    expected = max(0.0, hop_ms - upstream.get(TOTAL, 0.0)) + upstream.get("network", 0.0)
    assert crossed["network"] == expected
    assert {name: value for name, value in crossed.items() if name != "network"} == {
        name: value for name, value in upstream.items() if name not in ("network", TOTAL)
    }


def test_two_hops_add_up() -> None:
    first = across_hop(10.0, {"infer": 2.0, TOTAL: 4.0})
    second = across_hop(30.0, {**first, TOTAL: 11.0})
    assert second == {"infer": 2.0, "network": 25.0}


def test_a_hop_to_an_upstream_that_tells_nothing_is_all_network() -> None:
    assert across_hop(12.0, {}) == {"network": 12.0}
