"""How a compilation tells where it is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Step(msgspec.Struct, frozen=True):
    """`bundle` is name@version, `stage` what is being done, `done` the share of that stage from 0 to 1."""

    bundle: str
    stage: str
    done: float


Progress = Callable[[Step], None]
Advance = Callable[[float], None]
"""What a stage calls with its share done, 0 to 1."""


def silent(step: Step) -> None:
    """For callers who do not watch."""


def unwatched(done: float) -> None:
    """For stages used alone."""


def stage_of(progress: Progress, bundle: str, stage: str) -> Advance:
    """Announces the stage and returns what the stage calls as it advances."""
    progress(Step(bundle, stage, 0.0))
    return lambda done: progress(Step(bundle, stage, done))


def part_of(advance: Advance, start: float, end: float) -> Advance:
    """What a step calls whose whole is the stretch of `advance` from `start` to `end`."""
    return lambda done: advance(start + done * (end - start))
