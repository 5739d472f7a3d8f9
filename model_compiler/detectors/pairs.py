"""What a detector's rule is fitted on: the things that it finds in pictures, and whether the cloud's finds them too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from contracts.predictions import Box, same_thing

MAP_SHARE = 0.4
"""Of the pictures: their things fit the map, those of the others certify the threshold."""
_WORD = 16
_WORDS = 1 << 4 * _WORD


class Picture(msgspec.Struct, frozen=True):
    """A file, and the SHA-256 of its bytes as 64 hex digits."""

    path: Path
    digest: str


class Pair(msgspec.Struct, frozen=True):
    """A thing that the edge finds in a picture: its `score`, and whether the cloud `agrees`, which is that it finds the
    same. `picture` is its digest."""

    picture: str
    label: str
    score: float
    agrees: bool


class Split(NamedTuple):
    """`fit` for the map; `certify` for the threshold, one pair of a picture."""

    fit: tuple[Pair, ...]
    certify: tuple[Pair, ...]


def distinct(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
    """Each content once, under the first of its paths, in the order of digests: copies are no independent samples."""
    by_digest = {each.digest: each for each in sorted(pictures, key=lambda each: each.path, reverse=True)}
    return tuple(by_digest[digest] for digest in sorted(by_digest))


def pairs_of(picture: str, edge: Sequence[Box], cloud: Sequence[Box]) -> tuple[Pair, ...]:
    """One for each thing that the edge finds, weak ones beside better ones too: cameras judge each of them."""
    return tuple(
        Pair(picture, thing.label, thing.score, any(same_thing(thing, other) for other in cloud)) for thing in edge
    )


def split(pairs: Iterable[Pair]) -> Split:
    """By the pictures' digests alone: a picture keeps its part, and its thing, whatever others come or go.

    Things of one picture depend on each other, so that one of each is drawn for the threshold: what is certified is of
    a thing drawn from a picture in which something was found.
    """
    ordered = sorted(pairs, key=lambda each: (each.picture, each.label, each.score, each.agrees))
    fit = tuple(each for each in ordered if _fits(each.picture))
    others = (each for each in ordered if not _fits(each.picture))
    drawn = (_drawn(picture, tuple(found)) for picture, found in groupby(others, key=lambda each: each.picture))
    return Split(fit, tuple(drawn))


def _fits(picture: str) -> bool:
    return int(picture[:_WORD], 16) < MAP_SHARE * _WORDS


def _drawn(picture: str, found: Sequence[Pair]) -> Pair:
    """By other digits than those that part the pictures."""
    return found[int(picture[_WORD : 2 * _WORD], 16) * len(found) // _WORDS]
