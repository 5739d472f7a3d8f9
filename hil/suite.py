"""The acceptance of one live node, from the first look to the node put back as it was found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

from contracts.acceptance import Acceptance, Check, CheckName, verdict_of
from hil.bench import Bench
from hil.checks.activation import activation
from hil.checks.golden import golden
from hil.checks.latency import curve, latency
from hil.checks.ready import identity, metadata, ready
from hil.checks.recovery import power_cut, recovery
from hil.checks.revert import revert
from hil.checks.soak import soak
from hil.checks.thermals import thermals
from hil.http_port import plain
from hil.node import FAULTS
from hil.restoring import put_back

Need = Literal["node", "admin", "fleet", "known", "restart", "relay", "sensors"]
Tell = Callable[[Check], None]


class Step(NamedTuple):
    """One check of the suite, and what it cannot do without."""

    name: CheckName
    make: Callable[[Bench], Awaitable[list[Check]]]
    needs: tuple[Need, ...] = ()


STEPS = (
    Step("ready", ready),
    Step("metadata", metadata, ("node",)),
    Step("identity", identity, ("node", "fleet")),
    Step("golden", golden, ("node", "admin")),
    Step("latency", latency, ("node",)),
    Step("curve", curve, ("node",)),
    Step("soak", soak, ("node",)),
    Step("thermals", thermals, ("sensors", "node")),
    Step("activation", activation, ("node", "fleet", "known")),
    Step("revert", revert, ("node", "fleet", "known")),
    Step("recovery", recovery, ("node", "fleet", "known", "admin", "restart")),
    Step("power-cut", power_cut, ("relay", "node", "fleet", "known", "admin")),
)

_LACKING: Mapping[Need, str] = {
    "node": "the node is not ready, or serves no model that can be asked",
    "admin": "give the node's admin token: bundle files are handed to admins only",
    "fleet": "give --fleet and its admin token",
    "known": "without a passed `identity` the suite changes nothing",
    "restart": "the board's entry names no `restart`",
    "relay": "the board's entry names no power relay",
    "sensors": "the board's entry names no sensors",
}
_OPTIONAL: frozenset[Need] = frozenset({"relay", "sensors"})
"""What a board may lack for good."""


class Taken(NamedTuple):
    """What a run was told of itself: its board's name, its version, when it began (unix time)."""

    board: str
    suite: str
    at_s: float


async def accept(bench: Bench, taken: Taken, tell: Tell, clock: Callable[[], float] = time.monotonic) -> Acceptance:
    """Makes every check, and puts the node back. A node's faults raise nothing: they are the report.

    Cancelled, it stops where it is, puts the node back, and reports what it has; cancelled again, it leaves the node.
    """
    began_s, checks, interrupted = clock(), [], False

    def told(check: Check) -> None:
        checks.append(check)
        tell(check)

    try:
        await _run(bench, told)
    except asyncio.CancelledError:
        interrupted = True
    try:
        for check in await put_back(bench):
            told(check)
    except asyncio.CancelledError:
        interrupted = True
        told(Check("restored", "failed", "it was interrupted while the node was put back"))
    except FAULTS as error:
        told(Check("restored", "failed", plain(str(error) or type(error).__name__)))
    return _report(bench, taken, tuple(checks), interrupted=interrupted, seconds=clock() - began_s)


async def _run(bench: Bench, tell: Tell) -> None:
    passed: set[CheckName] = set()
    for step in STEPS:
        found = await _made(bench, step, passed)
        if all(check.outcome == "passed" for check in found):
            passed.add(step.name)
        for check in found:
            tell(check)


async def _made(bench: Bench, step: Step, passed: set[CheckName]) -> list[Check]:
    if step.name in bench.plan.skip:
        return [Check(step.name, "skipped", "left out as asked")]
    lacking = next((need for need in step.needs if not _has(bench, need, passed)), None)
    if lacking is not None:
        return [Check(step.name, "skipped", _LACKING[lacking], optional=lacking in _OPTIONAL)]
    try:
        return await step.make(bench) or [Check(step.name, "failed", "there was nothing to check")]
    except FAULTS as error:
        return [Check(step.name, "failed", plain(str(error) or type(error).__name__))]


def _has(bench: Bench, need: Need, passed: set[CheckName]) -> bool:
    relay = bench.board.power_cycle is not None or bench.board.power_off is not None
    have: Mapping[Need, bool] = {
        "node": "ready" in passed and (bool(bench.subjects) or "metadata" not in passed),
        "admin": bench.node.has_admin,
        "fleet": bench.fleet is not None,
        "known": bench.found is not None,
        "restart": bench.board.restart is not None,
        "relay": relay,
        "sensors": bool(bench.board.sensors),
    }
    return have[need]


def _report(bench: Bench, taken: Taken, checks: tuple[Check, ...], *, interrupted: bool, seconds: float) -> Acceptance:
    verdict = verdict_of(checks)
    return Acceptance(
        board=taken.board,
        url=plain(bench.node.url),
        node=bench.name,
        target=bench.target,
        verdict="partial" if interrupted and verdict == "passed" else verdict,
        at_s=taken.at_s,
        seconds=seconds,
        suite=taken.suite,
        checks=checks,
        bundles=tuple(bench.bundles),
        curves=tuple(bench.curves),
        fingerprint=bench.fingerprint,
        interrupted=interrupted,
    )
