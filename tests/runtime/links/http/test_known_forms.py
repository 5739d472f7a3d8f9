"""Forms of answers: what is matched is what a parser would read, and nothing else is matched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from runtime.links.http.bulk import Buffer
from runtime.links.http.known_forms import Forms
from runtime.links.http.replies import BrokenReply, LargeReply, Reply
from runtime.links.http.reply_forms import KnownReply

FIXED = "Content-Type: application/json\r\nFoothill-Node: edge-0\r\n"


def answer(timing: str = "infer;dur=1.5, total;dur=2", load: str = "in_flight=1", body: bytes = b"{}") -> bytes:
    head = f"HTTP/1.1 200 OK\r\n{FIXED}Server-Timing: {timing}\r\nFoothill-Load: {load}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def read(data: bytes) -> Reply:
    scratch = memoryview(bytearray(1 << 16))
    reply = Reply("POST", scratch, max_body_bytes=1 << 16)
    reply.take(data)
    assert reply.done
    return reply


def learned(data: bytes) -> Forms:
    forms, reply = Forms(), read(data)
    forms.learn(reply.head, reply.status, reply.headers)
    return forms


def match(forms: Forms, data: bytes, stale: bytes = b"") -> KnownReply | None:
    """What is read of `data`, with `stale` bytes of an earlier answer behind it."""
    buffer = Buffer(1 << 12)
    buffer.view[: len(data) + len(stale)] = data + stale
    return forms.reply(buffer, len(data))


visible = (
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40).map(str.strip).filter(bool)
)


@given(visible, visible, st.binary(max_size=300))
def test_answers_that_differ_in_what_is_new_each_time_are_known_and_read_alike(
    timing: str, load: str, body: bytes
) -> None:
    data = answer(timing, load, body)
    known = match(learned(answer()), data)
    assert known is not None
    whole = read(data)
    assert (known.status, known.body) == (whole.status, whole.body)
    assert CIMultiDict(known.headers) == whole.headers


@given(st.integers(0, 400))
def test_half_an_answer_is_not_made_whole_by_what_an_earlier_one_has_left(size: int) -> None:
    data = answer(body=b"x" * 40)
    forms, half = learned(data), data[: min(size, len(data) - 1)]
    assert match(forms, half, stale=data[len(half) :]) is None
    assert match(forms, data, stale=data) is not None


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 3))
def test_whatever_is_matched_a_parser_reads_just_so(noise: bytes, at: int, cut: int) -> None:
    data = answer()
    changed = data[:at] + noise + data[at + cut :]
    known = match(learned(data), changed)
    if known is None:
        return
    try:
        whole = read(changed)
    except (BrokenReply, LargeReply, AssertionError) as error:
        raise AssertionError(f"{changed!r} is no answer") from error
    assert (whole.body, whole.headers) == (known.body, known.headers)


def test_more_or_less_than_one_answer_is_not_matched() -> None:
    forms = learned(answer())
    assert match(forms, answer() + b"x") is None
    assert match(forms, answer()[:-1]) is None
    assert match(forms, answer() + answer()) is None
    assert match(forms, b"") is None


def test_other_headers_are_another_form_and_both_are_known() -> None:
    other = answer().replace(b"edge-0", b"edge-1")
    forms = learned(answer())
    assert match(forms, other) is None
    reply = read(other)
    forms.learn(reply.head, reply.status, reply.headers)
    first, second = match(forms, answer()), match(forms, other)
    assert isinstance(first, KnownReply)
    assert isinstance(second, KnownReply)
    assert (first.headers["Foothill-Node"], second.headers["Foothill-Node"]) == ("edge-0", "edge-1")


def test_a_server_that_says_something_new_each_time_is_not_learned_for_ever() -> None:
    forms = Forms()
    for number in range(1000):
        reply = read(answer().replace(b"edge-0", b"edge-%d" % number))
        forms.learn(reply.head, reply.status, reply.headers)
    assert len(forms._forms) <= 8


def test_an_odd_head_is_not_learned() -> None:
    for data in (
        answer().replace(b"Foothill-Node: edge-0", b"Foothill-Node:edge-0"),
        answer().replace(b"Foothill-Node: edge-0", b"Foothill-Node: a\r\nFoothill-Node: b"),
        answer().replace(b"200 OK", b"201 Created"),
    ):
        assert match(learned(data), data) is None
