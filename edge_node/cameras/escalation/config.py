"""The table `escalation` of a camera: what leaves the box, when, and how much of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]

_FUNCTION = re.compile(r"(?P<file>[^:\0]{1,400}\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]{0,100})")


class Where(msgspec.Struct, frozen=True):
    """Where an operator's function is: a file of Python, and its name there."""

    file: str
    name: str


class EscalationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """docs/cameras.md explains each key.

    A thing is judged by the best look at it within `look_s`, and once more every `again_s` (0: never again), which is
    also the least time between two questions about it. `ask` "auto" leaves it to the live certificate and to the
    triggers: a score below `below`, a track that is `broken`, motion in which nothing is found for `empty_after_s` (0:
    never), an output `features` that is as unusual as `unusual` of all pictures, a `function` that says so.
    """

    ask: Literal["auto", "never", "always"] = "auto"
    look_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    again_s: Seconds = 30.0
    below: Share = 0.0
    broken: bool = True
    empty_after_s: Seconds = 0.0
    features: str = ""
    unusual: Annotated[float, Meta(ge=0.0001, le=0.1)] = 0.001
    function: str = ""
    send: Literal["crop", "whole"] = "crop"
    margin: Annotated[float, Meta(ge=0, le=2)] = 0.2
    longest_side: Annotated[int, Meta(ge=32, le=16_384)] = 1280
    quality: Annotated[int, Meta(ge=1, le=100)] = 85
    deadline_ms: Annotated[float, Meta(gt=0, le=600_000)] = 5000.0
    bytes_per_hour: Annotated[int, Meta(ge=0, le=1 << 40)] = 20_000_000

    def __post_init__(self) -> None:
        if self.function:
            _ = self.where

    @property
    def where(self) -> Where:
        """Raises ValueError where `function` names none."""
        told = _FUNCTION.fullmatch(self.function)
        if told is None:
            raise ValueError(f"function {self.function[:80]!r} names none: write FILE.py:NAME")
        return Where(told["file"], told["name"])
