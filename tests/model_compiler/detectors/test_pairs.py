"""Things and pictures: who agrees with whom, and which of them may certify what."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from contracts.predictions import Box, same_thing
from model_compiler.detectors.pairs import MAP_SHARE, Pair, Picture, distinct, pairs_of, split

LABELS = ("bird", "cat", "dog")


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


digests = st.integers(0, 10_000).map(digest)
things = st.lists(
    st.builds(
        lambda label, score, left, top: Box(label, score, (left, top, left + 10.0, top + 10.0)),
        st.sampled_from(LABELS),
        st.floats(0, 1),
        *[st.integers(0, 20).map(float)] * 2,
    ),
    max_size=8,
)
pairs = st.lists(st.builds(Pair, digests, st.sampled_from(LABELS), st.floats(0, 1), st.booleans()), max_size=60)


@given(things, things)
def test_each_thing_stands_for_itself(edge: Sequence[Box], cloud: Sequence[Box]) -> None:
    found = pairs_of("a", edge, cloud)
    assert [(each.label, each.score) for each in found] == [(thing.label, thing.score) for thing in edge]
    for pair, thing in zip(found, edge, strict=True):
        assert pair.agrees == any(same_thing(thing, other) for other in cloud)
        assert pair.picture == "a"


def test_the_cloud_agrees_on_what_it_finds_and_not_on_another_of_its_label() -> None:
    best, other = Box("dog", 0.9, (0, 0, 10, 10)), Box("dog", 0.8, (50, 50, 60, 60))
    assert [each.agrees for each in pairs_of("a", [best, other], [other])] == [False, True]
    assert [each.agrees for each in pairs_of("a", [best, other], [Box("dog", 0.1, (0, 4, 10, 14))])] == [True, False]
    assert [each.agrees for each in pairs_of("a", [best, other], [Box("cat", 0.9, best.box)])] == [False, False]
    assert pairs_of("a", [], [best]) == ()


@given(pairs)
def test_no_picture_is_in_both_parts_and_none_certifies_twice(some: list[Pair]) -> None:
    parts = split(some)
    fit, certify = ([each.picture for each in part] for part in parts)
    assert not set(fit) & set(certify)
    assert len(certify) == len(set(certify))
    assert {*fit, *certify} == {each.picture for each in some}
    assert set(parts.fit) == {each for each in some if each.picture in set(fit)}
    assert set(parts.certify) <= set(some)


@given(pairs, pairs)
def test_what_becomes_of_a_picture_depends_on_itself_alone(some: list[Pair], more: list[Pair]) -> None:
    known = {each.picture for each in some}
    alone = split(some)
    among = split([*(each for each in more if each.picture not in known), *reversed(some)])
    for one, other in zip(alone, among, strict=True):
        assert list(one) == [each for each in other if each.picture in known]


def test_two_fifths_of_pictures_fit_the_map_and_things_are_drawn_alike() -> None:
    count = 20_000
    parts = split(Pair(digest(number), label, 0.5, True) for number in range(count) for label in LABELS)
    share = len(parts.fit) / (len(LABELS) * count)
    assert abs(share - MAP_SHARE) < 0.015
    drawn = Counter(each.label for each in parts.certify)
    assert all(abs(drawn[label] / len(parts.certify) - 1 / 3) < 0.02 for label in LABELS)


@given(st.lists(st.tuples(st.integers(0, 50), digests), unique_by=lambda each: each[0]))
def test_copies_of_a_picture_count_once(some: list[tuple[int, str]]) -> None:
    pictures = [Picture(Path(f"{number:02}.png"), told) for number, told in some]
    found = distinct(pictures)
    assert [each.digest for each in found] == sorted({told for _, told in some})
    assert distinct(reversed(pictures)) == found
    assert all(each.path == min(other.path for other in pictures if other.digest == each.digest) for each in found)
