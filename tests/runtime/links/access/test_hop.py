"""The mark between hops: genuine, fresh, and of this request, or none at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.links.access.hop import MAX_SKEW_S, sign_hop, verify_hop

KEY = b"k" * 32
NOW_S = 1_800_000_000.0


@pytest.mark.parametrize("hop", ["router", "node"])
def test_a_genuine_mark_names_its_hop(hop: str) -> None:
    assert verify_hop(KEY, sign_hop(KEY, hop, "r1", NOW_S), "r1", NOW_S + 5) == hop


def test_a_mark_of_another_request_key_or_time_is_none() -> None:
    value = sign_hop(KEY, "router", "r1", NOW_S)
    assert verify_hop(KEY, value, "r2", NOW_S) is None
    assert verify_hop(b"other", value, "r1", NOW_S) is None
    assert verify_hop(KEY, value, "r1", NOW_S + MAX_SKEW_S + 1) is None
    assert verify_hop(KEY, value, "r1", NOW_S - MAX_SKEW_S - 1) is None
    assert verify_hop(KEY, None, "r1", NOW_S) is None


def test_a_hop_cannot_pass_for_another() -> None:
    value = sign_hop(KEY, "node", "r1", NOW_S)
    assert verify_hop(KEY, value.replace("node", "router"), "r1", NOW_S) is None


def test_only_known_hops_are_signed() -> None:
    with pytest.raises(ValueError, match="use router or node"):
        sign_hop(KEY, "client", "r1", NOW_S)


@given(st.text(max_size=200))
def test_no_text_passes_for_a_mark(value: str) -> None:
    assert verify_hop(KEY, value, "r1", NOW_S) is None
