"""Heads that are alike but for their ids, deadlines and marks: read once, and never otherwise than each by itself."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.links.http.framing import Framing
from runtime.links.http.heads import Head

FIRST = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nfoothill-request-id: 0123456789abcdef\r\nContent-Length: 5\r\n"
    b"Foothill-Hop:  router;1700000000;aa\r\nFoothill-Deadline-Ms: 00500.000\r\nX: y\r\n\r\n"
)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=16)


def told(framing: Framing) -> tuple[str, str, list[tuple[str, str]], int] | bytes | None:
    """All there is to know of the next head; what it was read as is left aside."""
    head = framing.head()
    if not isinstance(head, Head):
        return head
    alike, varied = head
    named = sorted((name.lower(), value) for name, value in alike.headers(varied).items())
    return alike.method, alike.target, named, alike.content_length


def after_first(head: bytes) -> Framing:
    framing = Framing()
    framing.add(FIRST + b"hello")
    assert isinstance(framing.head(), Head)
    assert framing.take(5) == b"hello"
    framing.add(head)
    return framing


@given(VALUES, VALUES)
def test_heads_with_other_ids_are_alike(one: str, other: str) -> None:
    framing, seen = Framing(), []
    for value in (one, other):
        framing.add(FIRST.replace(b"0123456789abcdef", value.encode()))
        head = framing.head()
        assert isinstance(head, Head)
        seen.append(head)
        assert head.alike.headers(head.varied)["Foothill-Request-Id"] == value
        assert head.alike.headers(head.varied)["Foothill-Hop"] == "router;1700000000;aa"
        assert head.alike.raw(head.varied) == FIRST.replace(b"0123456789abcdef", value.encode())
    assert seen[0].alike is seen[1].alike
    assert dict(seen[0].varied) != dict(seen[1].varied) or one == other


@given(st.lists(st.tuples(st.integers(0, len(FIRST)), st.binary(min_size=1, max_size=6)), max_size=4))
@example([(FIRST.index(b"0123"), b"a\r\nB: c")])
@example([(FIRST.index(b"0123"), b" 12345")])
@example([(FIRST.index(b"cdef") + 3, b"\t")])
@example([(FIRST.index(b"0123"), b"\r\n\r\nGE")])
@example([(FIRST.index(b"500.000"), b"5\x00\x7f")])
@example([(FIRST.index(b"0123"), "é".encode())])
@example([(FIRST.index(b"router"), b":;, ")])
def test_a_head_with_bytes_put_anywhere_is_read_as_if_it_were_the_first(changes: list[tuple[int, bytes]]) -> None:
    """Else one caller's value could become another header, or the next request."""
    head = FIRST
    for at, new in changes:
        head = head[:at] + new + head[at + len(new) :]
    alone = Framing()
    alone.add(head)
    behind = after_first(head)
    assert told(behind) == told(alone)
    assert behind.held == alone.held


@pytest.mark.parametrize("value", ["é" * 8, "a\tb" + "c" * 13, "x" * 16])
def test_a_first_value_that_is_odd_makes_its_head_no_pattern(value: str) -> None:
    head, framing = FIRST.replace(b"0123456789abcdef", value.encode()), Framing()
    for _ in range(2):
        framing.add(head)
        read = framing.head()
        assert isinstance(read, Head)
        assert bool(read.varied) == (value == "x" * 16)
        assert read.alike.headers(read.varied)["Foothill-Request-Id"] == value
        assert read.alike.raw(read.varied) == head


def test_what_lies_between_may_not_differ() -> None:
    framing = after_first(FIRST.replace(b"X: y", b"X: z"))
    found = told(framing)
    assert isinstance(found, tuple)
    assert ("x", "z") in found[2]


def test_a_head_of_which_not_all_is_here_waits() -> None:
    framing = after_first(FIRST[:-1])
    assert framing.head() is None
    framing.add(FIRST[-1:])
    assert isinstance(framing.head(), Head)
