"""Leases by the clock: asked once, renewed after 80 %, kept when the router is away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.leases import Lease
from foothill.client.lease_book import LeaseBook, Subject

DIGITS = Subject("digits")
LEASE = Lease(model="digits", nodes=(), cloud="http://cloud:1", ttl_s=100.0)


def test_a_lease_is_fresh_then_due_then_expired_and_never_forgotten() -> None:
    book = LeaseBook()
    assert book.standing(DIGITS, 0.0) == "none"
    book.put(DIGITS, LEASE, 0.0)
    assert [book.standing(DIGITS, now) for now in (0.0, 79.9, 80.1, 99.9, 100.1)] == [
        "fresh",
        "fresh",
        "due",
        "due",
        "expired",
    ]
    assert book.get(DIGITS) is LEASE


def test_leases_are_kept_apart_by_residency() -> None:
    book = LeaseBook()
    book.put(DIGITS, LEASE, 0.0)
    assert book.standing(Subject("digits", ("eu",)), 1.0) == "none"


def test_a_router_that_is_away_is_not_asked_again_at_once() -> None:
    book = LeaseBook()
    book.put(DIGITS, LEASE, 0.0)
    book.router_away(DIGITS, 200.0)
    assert book.standing(DIGITS, 204.9) == "fresh"
    assert book.standing(DIGITS, 205.1) == "expired"


def test_a_failed_node_makes_the_lease_due() -> None:
    book = LeaseBook()
    book.put(DIGITS, LEASE, 0.0)
    book.suspect(DIGITS, 10.0)
    assert book.standing(DIGITS, 10.0) == "due"
    book.drop(DIGITS)
    assert book.standing(DIGITS, 10.0) == "none"


@given(
    st.lists(st.tuples(st.sampled_from(["put", "suspect", "away"]), st.floats(0.0, 50.0)), max_size=30),
    st.floats(0.1, 100.0),
)
def test_no_lease_is_used_without_asking_for_longer_than_its_time_to_live(
    events: list[tuple[str, float]], ttl_s: float
) -> None:
    book, now, asked = LeaseBook(), 0.0, 0.0
    book.put(DIGITS, Lease("digits", (), "", ttl_s), 0.0)
    for event, pause in events:
        now += pause
        if event == "put":
            book.put(DIGITS, Lease("digits", (), "", ttl_s), now)
            asked = now
        elif event == "suspect":
            book.suspect(DIGITS, now)
        else:
            book.router_away(DIGITS, now)
            asked = now
        assert book.standing(DIGITS, now) in ("fresh", "due", "expired")
        if now - asked > ttl_s:
            assert book.standing(DIGITS, now) == "expired"
