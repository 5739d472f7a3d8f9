"""What was asked for: which nodes, in which stages, how many at a time, and what must be true before it goes on."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec

from contracts.errors import FoothillError
from fleet.rollouts.windows import Window

Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=31_536_000.0)]
_PERCENT = re.compile(r"[0-9]{1,3}")


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How carefully. Seconds are those in which nodes could be heard.

    `max_parallel`: nodes between being told and being healthy, at a time; 0: all of a stage. A node is healthy once it
    has served the new version for `min_healthy_s`; one that is not `healthy_deadline_s` after it was told has failed,
    silent or not. More than `max_failed` failures stop the rollout: with `auto_revert` every exposed node gets its
    previous bundle back, else it stands `halted` until somebody decides. `bake_s`: how long each stage is watched
    before the next. `approve_after`: the stages, from 1, after which somebody must promote it.
    """

    max_parallel: Annotated[int, msgspec.Meta(ge=0)] = 0
    min_healthy_s: Seconds = 0.0
    healthy_deadline_s: Annotated[float, msgspec.Meta(gt=0.0, le=31_536_000.0)] = 300.0
    max_failed: Annotated[int, msgspec.Meta(ge=0)] = 0
    auto_revert: bool = True
    bake_s: Seconds = 0.0
    approve_after: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()

    def __post_init__(self) -> None:
        if self.min_healthy_s >= self.healthy_deadline_s:
            raise ValueError("healthy_deadline_s must be above min_healthy_s, or no node could ever be healthy in time")


class Gate(msgspec.Struct, frozen=True):
    """Stands after stage `stage`, from 0; it must have decided `silence_s` after all of the stage's nodes were healthy.
    What it judges by is no matter of the state machine's (`fleet/judging`)."""

    stage: int
    silence_s: float


class Plan(msgspec.Struct, frozen=True):
    """`stages` lists the nodes that each stage adds; `previous` what each node had ("" nothing). `windows`: nodes that
    may be told at some times only."""

    id: str
    bundle: str
    model: str
    digest: str
    stages: tuple[tuple[str, ...], ...]
    previous: dict[str, str]
    policy: Policy = Policy()
    gate: Gate | None = None
    windows: dict[str, Window] = {}


def plan_stages(nodes: Sequence[str], stages: Sequence[int | str]) -> tuple[tuple[str, ...], ...]:
    """Cuts nodes into stages. Each entry is how many nodes have the new version after it: a count or a percentage.

    The last stage always covers all nodes. Raises FoothillError `bad_request` for anything out of form.
    """
    reached, cut = 0, []
    for wanted in (*stages, "100%"):
        end = min(len(nodes), _count(wanted, len(nodes)))
        if end > reached:
            cut.append(tuple(nodes[reached:end]))
            reached = end
    return tuple(cut)


def _count(wanted: int | str, total: int) -> int:
    share = wanted.removesuffix("%") if isinstance(wanted, str) else ""
    if isinstance(wanted, str) and wanted.endswith("%") and _PERCENT.fullmatch(share) and 1 <= int(share) <= 100:
        return math.ceil(total * int(share) / 100)
    if isinstance(wanted, int) and wanted >= 1:
        return wanted
    raise FoothillError("bad_request", f'Stage {wanted!r} is neither a number of nodes nor a percentage like "25%".')
