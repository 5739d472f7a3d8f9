"""A stand-in for NVIDIA's runtimes: what loading an engine comes to, written from NVIDIA's words alone.

It shares nothing with `contracts.portability`: no function, no table, and another shape. Each entry of DOCUMENTED is
one statement of the documentation, and what becomes of an engine that it rules out.

[M] support matrix and [C] engine compatibility of TensorRT 10.16 and 11.4, [R] TensorRT-RTX 1.7, [H] NvInfer.h 11.1,
[O] our own reading where NVIDIA promises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from contracts.engines import EngineRecord, Machine, Wanted

Outcome = Literal["right", "wrong", "null"]
"""Right answers; a plan that loads and is not promised to answer right; no engine at all."""


class Plan(NamedTuple):
    """What a serialized engine says in its head, and what it holds."""

    library: str
    built_by: str
    system: str
    processor: str
    product: str
    module: str
    capability: tuple[int, int]
    multiprocessors: int
    toolkit: str
    l4t: str
    forward_compatible: bool
    reach: str
    capabilities: frozenset[tuple[int, int]]
    stripped: bool
    accelerator: int | None
    network: str
    lowest: dict[str, tuple[int, ...]]
    highest: dict[str, tuple[int, ...]]


def plan_of(record: EngineRecord) -> Plan:
    built = record.machine
    return Plan(
        library=built.kind,
        built_by=built.version,
        system=built.os,
        processor=built.arch,
        product=built.gpu or "?",
        module=built.target,
        capability=_capability(built.sm),
        multiprocessors=built.sm_count or -1,
        toolkit=built.cuda or "",
        l4t=built.jetpack or "",
        forward_compatible=record.version_compatible,
        reach=record.hardware,
        capabilities=frozenset(_capability(sm) for sm in record.compute_capabilities),
        stripped=record.weight_stripped,
        accelerator=record.dla_core,
        network=record.onnx,
        lowest={shapes.name: shapes.min for shapes in record.profile},
        highest={shapes.name: shapes.max for shapes in record.profile},
    )


def _capability(sm: int | None) -> tuple[int, int]:
    return (0, 0) if sm is None else divmod(sm, 10)


def _runs_later(plan: Plan, board: Machine) -> bool:
    """[C] forward only, and [M] across majors 8 to 10 and 10 to 11 alone."""
    old, new = plan.built_by.split("."), board.version.split(".")
    if [int(part) for part in new] < [int(part) for part in old]:
        return False
    return old[0] == new[0] or f"{old[0]}>{new[0]}" in ("8>10", "10>11")


def _is_the_device(plan: Plan, board: Machine) -> bool:
    seen, named = (board.gpu, board.sm, board.sm_count), (plan.product, plan.capability, plan.multiprocessors)
    unknown = None in seen or named[0] == "?" or named[1] == (0, 0) or named[2] == -1
    same_module = not board.jetpack or plan.module == board.target
    return (
        not unknown
        and same_module
        and plan.product == board.gpu
        and plan.capability == _capability(board.sm)
        and plan.multiprocessors == board.sm_count
    )


def _reaches(plan: Plan, board: Machine) -> bool:
    here = _capability(board.sm)
    if plan.reach == "none":
        return _is_the_device(plan, board)
    if plan.l4t or board.jetpack or (0, 0) in (here, plan.capability):
        return False
    return here == plan.capability if plan.reach == "same_compute_capability" else min(here, plan.capability) >= (8, 0)


def _within(plan: Plan, wanted: Wanted) -> bool:
    if plan.lowest.keys() != {one.name for one in wanted.profile}:
        return False
    for one in wanted.profile:
        low, high = plan.lowest[one.name], plan.highest[one.name]
        if len(low) != len(one.min) or any(
            need_low < low[axis] or need_high > high[axis]
            for axis, (need_low, need_high) in enumerate(zip(one.min, one.max, strict=True))
        ):
            return False
    return True


def _rtx_capable(plan: Plan, board: Machine) -> bool:
    here = _capability(board.sm)
    if plan.capabilities:
        return here in plan.capabilities
    return here in {(8, 0), (8, 6), (8, 9)} or here >= (12, 0)


class Statement(NamedTuple):
    says: str
    outcome: Outcome
    allows: Callable[[Plan, Machine, Wanted], bool]


DOCUMENTED: dict[str, tuple[Statement, ...]] = {
    "tensorrt": (
        Statement("[M] not portable across platforms", "null", lambda p, b, _: p.system == b.os),
        Statement("[C] the same processor architecture", "null", lambda p, b, _: p.processor == b.arch),
        Statement(
            "[C] major, minor, patch and build must match, or the plan be version compatible",
            "null",
            lambda p, b, _: p.built_by == b.version or (p.forward_compatible and _runs_later(p, b)),
        ),
        Statement("[C] by default only the type of device where it was built", "wrong", lambda p, b, _: _reaches(p, b)),
        Statement(
            "[O] no promise across CUDA major versions, but for a plan with its own runtime",
            "wrong",
            lambda p, b, _: p.forward_compatible or p.toolkit.split(".")[0] == (b.cuda or "").split(".")[0],
        ),
        Statement(
            "[O] no promise across JetPack lines", "wrong", lambda p, b, _: _l4t_line(p.l4t) == _l4t_line(b.jetpack)
        ),
        Statement(
            "[H] a DLA core that is there", "null", lambda p, b, _: p.accelerator is None or p.accelerator < b.dla_cores
        ),
        Statement(
            "[C] the lean runtime cannot refit", "wrong", lambda p, _b, _w: not (p.stripped and p.forward_compatible)
        ),
    ),
    "tensorrt-rtx": (
        Statement("[R] not compatible between releases", "null", lambda p, b, _: p.built_by == b.version),
        Statement(
            "[R] portable to Linux and Windows", "null", lambda p, b, _: {p.system, b.os} <= {"linux", "windows"}
        ),
        Statement("[R] x86 engines run on x86", "null", lambda p, b, _: p.processor == b.arch),
        Statement("[R] the compute capabilities it was built for", "null", lambda p, b, _: _rtx_capable(p, b)),
    ),
}


def _l4t_line(release: str | None) -> str:
    return (release or "").removeprefix("L4T ").split(".")[0]


def load(record: EngineRecord, board: Machine, wanted: Wanted) -> Outcome:
    """What becomes of serving `wanted` on `board` with this engine."""
    plan = plan_of(record)
    if not board.version or not plan.built_by or plan.library != board.kind:
        return "null"
    for statement in DOCUMENTED[plan.library]:
        if not statement.allows(plan, board, wanted):
            return statement.outcome
    if plan.network != wanted.onnx or not _within(plan, wanted):
        return "wrong"
    return "right"
