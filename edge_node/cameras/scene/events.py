"""What a scene tells. Times are capture times in seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

Direction = Literal["in", "out"]


class Entered(msgspec.Struct, frozen=True):
    """A track that came at `since_s` has stayed for long enough to be in a zone."""

    zone: str
    track: int
    label: str
    at_s: float
    since_s: float


class Left(msgspec.Struct, frozen=True):
    """A track is out of a zone, or over, after it had been there for `stayed_s`. The label is that of its `Entered`."""

    zone: str
    track: int
    label: str
    at_s: float
    stayed_s: float


class Crossed(msgspec.Struct, frozen=True):
    """A track has crossed a line."""

    line: str
    track: int
    label: str
    direction: Direction
    at_s: float


class RuleBegan(msgspec.Struct, frozen=True):
    """What a rule waits for has come about, by `tracks`. `episode` counts from 1 for each rule."""

    rule: str
    episode: int
    tracks: tuple[int, ...]
    at_s: float


class RuleEnded(msgspec.Struct, frozen=True):
    """It is over, after `lasted_s`."""

    rule: str
    episode: int
    at_s: float
    lasted_s: float


SceneEvent = Entered | Left | Crossed | RuleBegan | RuleEnded
