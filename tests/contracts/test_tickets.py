"""Tickets: one spelling each, believed for a time, a model and an audience."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from contracts.tickets import (
    CLOUD_AUDIENCE,
    MAX_LIFE_S,
    SKEW_S,
    Limits,
    Sealed,
    Ticket,
    check_audience,
    check_model,
    check_time,
    compact,
    looks_like_ticket,
    parse,
)
from contracts.topics import NODE_NAME

NOW_S = 1_800_000_000.0
TICKET = Ticket("j1", ("fra", CLOUD_AUDIENCE), "kiosk", "digits", ("eu",), Limits(), NOW_S, NOW_S + 300)
SEALED = Sealed("0123456789abcdef", b"payload", b"s" * 64)


def between(issued_at_s: float, expires_at_s: float) -> Ticket:
    return Ticket("j1", ("fra",), "kiosk", "digits", (), Limits(), issued_at_s, expires_at_s)


def refused(ticket: Ticket, now_s: float = NOW_S) -> str:
    with pytest.raises(FoothillError) as raised:
        check_time(ticket, now_s)
    return raised.value.code


@given(st.binary(min_size=1, max_size=900), st.binary(min_size=64, max_size=64))
def test_a_ticket_survives_its_spelling(payload: bytes, signature: bytes) -> None:
    sealed = Sealed("0123456789abcdef", payload, signature)
    assert looks_like_ticket(compact(sealed))
    assert parse(compact(sealed)) == sealed


@given(st.text(max_size=40))
def test_whatever_else_is_refused(text: str) -> None:
    for token in (text, f"ft1.{text}", compact(SEALED) + text[:1], "x" * 9000):
        if token != compact(SEALED):
            with pytest.raises(FoothillError) as raised:
                parse(token)
            assert raised.value.code == "unauthorized"


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    """Else one ticket could fill the memory of those that were verified, or be counted twice."""
    token = compact(SEALED)
    last = token[-1]
    variants = [token[:-1] + letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef" if letter != last]
    for variant in (*variants, token + "=", token.replace("ft1", "FT1"), f" {token}", f"{token}\n"):
        with contextlib.suppress(FoothillError):
            assert parse(variant).signature != SEALED.signature


def test_a_ticket_holds_from_its_issue_to_its_end_and_clocks_may_be_a_little_apart() -> None:
    for now_s in (NOW_S - SKEW_S, NOW_S, NOW_S + 300 + SKEW_S):
        check_time(TICKET, now_s)
    assert refused(TICKET, NOW_S - SKEW_S - 1) == "unauthorized"
    assert refused(TICKET, NOW_S + 301 + SKEW_S) == "ticket_expired"


@pytest.mark.parametrize("ends_s", [NOW_S, NOW_S - 1, NOW_S + MAX_LIFE_S + 1, math.inf, -math.inf, math.nan], ids=str)
def test_a_ticket_that_never_ends_or_never_began_is_refused(ends_s: float) -> None:
    assert refused(between(NOW_S, ends_s)) == "unauthorized"
    assert refused(between(math.nan, NOW_S + 60)) == "unauthorized"


def test_a_ticket_is_for_its_audience_and_its_model_alone() -> None:
    check_audience(TICKET, "fra")
    check_audience(TICKET, CLOUD_AUDIENCE)
    check_model(TICKET, "digits")
    for check, other in ((check_audience, "iad"), (check_model, "faces"), (check_model, "")):
        with pytest.raises(FoothillError) as raised:
            check(TICKET, other)
        assert raised.value.code == "forbidden"


def test_no_node_can_take_the_clouds_audience() -> None:
    assert not NODE_NAME.fullmatch(CLOUD_AUDIENCE)
