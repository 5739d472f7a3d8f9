"""The chain: whatever is changed, left out, put in or moved breaks it, and it says where."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.auditing.chain import START, BrokenChainError, Entry, follow, link, read
from fleet.auditing.entries import AcceptanceLifted, Body, Opened, Published, TokenIssued, Withdrawn

BODIES: st.SearchStrategy[Body] = st.one_of(
    st.builds(TokenIssued, st.text(), st.text(), st.floats(0, 1e12)),
    st.builds(Withdrawn, st.text(), st.text(), st.integers(0, 1 << 53)),
    st.builds(Published, st.text(), st.text(), st.text()),
)
TIMES = st.floats(-1e12, 1e12)
LOGS = st.lists(st.tuples(TIMES, BODIES), min_size=2, max_size=6)


def chain(log: list[tuple[float, Body]]) -> list[Entry]:
    """As it comes over the network."""
    entries, last = [], START
    for at_s, body in log:
        entry = link(last, at_s, body)
        entries.append(entry)
        last = entry.mark
    return [msgspec.json.decode(msgspec.json.encode(entry), type=Entry) for entry in entries]


@given(LOGS)
def test_what_was_written_is_read_again(log: list[tuple[float, Body]]) -> None:
    assert [(entry.at_s, read(entry)) for entry in follow(chain(log))] == log


@given(LOGS, st.data())
def test_an_entry_that_was_changed_is_named(log: list[tuple[float, Body]], data: st.DataObject) -> None:
    entries = chain(log)
    at = data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(
        st.sampled_from(
            [
                msgspec.structs.replace(entries[at], at_s=entries[at].at_s + 1.0 + abs(entries[at].at_s)),
                msgspec.structs.replace(entries[at], body=msgspec.Raw(msgspec.json.encode(AcceptanceLifted("x")))),
                msgspec.structs.replace(entries[at], hash="0" * 64),
            ]
        )
    )
    entries[at] = other
    with pytest.raises(BrokenChainError, match=f"entry {at + 1} was changed"):
        list(follow(entries))


@given(LOGS, st.data())
def test_entries_that_are_left_out_or_moved_are_missed(log: list[tuple[float, Body]], data: st.DataObject) -> None:
    entries = chain(log)
    at = data.draw(st.integers(0, len(entries) - 2))
    without, swapped = entries[:at] + entries[at + 1 :], list(entries)
    swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
    for broken in (without, swapped):
        with pytest.raises(BrokenChainError, match=f"entry {at + 1} is missing"):
            list(follow(broken))


def test_numbers_that_were_put_right_again_help_nobody() -> None:
    entries = chain([(float(at), Published(f"digits@{at}", "digits", "sha256:a")) for at in range(4)])
    forged = [*entries[:1], *(msgspec.structs.replace(entry, seq=entry.seq - 1) for entry in entries[2:])]
    with pytest.raises(BrokenChainError, match="entry 2 was changed"):
        list(follow(forged))


def test_a_log_is_followed_from_where_it_was_left() -> None:
    entries = chain([(0.0, Opened({}, ())), (1.0, AcceptanceLifted("a")), (2.0, AcceptanceLifted("b"))])
    followed = follow(itertools.islice(entries, 1, None), entries[0].mark)
    assert [entry.seq for entry in followed] == [2, 3]


def test_what_another_version_has_written_is_told_as_that() -> None:
    entry = Entry(1, 0.0, msgspec.Raw(b'{"type":"something new"}'), "")
    with pytest.raises(BrokenChainError, match="entry 1 cannot be read"):
        read(entry)
