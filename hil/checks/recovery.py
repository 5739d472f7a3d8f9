"""Recovery: the node dies in the midst of an update, by SIGKILL or by its power, and comes back whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from contracts.acceptance import Check, CheckName
from contracts.errors import FoothillError
from hil.bench import Bench
from hil.checks.activation import served_by
from hil.checks.golden import parity
from hil.checks.guarded import guarded
from hil.fleet import Published
from hil.http_port import plain
from hil.node import FAULTS, Subject
from hil.trials import twin

Cut = Callable[[], Awaitable[None]]

_POLL_S = 0.03
_BACK_POLL_S = 0.1
_PHASES = {2: frozenset({"fetching", "verifying", "testing"}), 3: frozenset({"probation"})}
"""The number of the twin that is being taken, and in which of its phases the node dies. One that is over before it is
seen is cut right after."""
_POWER_PHASES = {4: frozenset({"fetching", "verifying", "testing", "probation"})}


async def recovery(bench: Bench) -> list[Check]:
    """The process alone."""
    action = bench.board.restart
    if action is None:
        raise FoothillError("bad_request", "The board's entry names no restart.")

    async def cut() -> None:
        await bench.do(action)

    return await _each(bench, "recovery", cut, _PHASES)


async def power_cut(bench: Bench) -> list[Check]:
    """The real thing, where a relay holds the board's power."""

    async def cut() -> None:
        board = bench.board
        if board.power_cycle is not None:
            await bench.do(board.power_cycle)
        elif board.power_off is not None and board.power_on is not None:
            await bench.do(board.power_off)
            await asyncio.sleep(board.off_s)
            await bench.do(board.power_on)

    return await _each(bench, "power-cut", cut, _POWER_PHASES)


async def _each(bench: Bench, name: CheckName, cut: Cut, plan: Mapping[int, frozenset[str]]) -> list[Check]:
    """One after the other; a node that did not come back is not killed again."""
    made: list[Check] = []
    for number, phases in plan.items():
        model = bench.subjects[0].name
        made.append(await guarded(name, model, _killed(bench, name, cut, number, phases)))
        if made[-1].outcome == "failed":
            break
    return made


async def _killed(bench: Bench, name: CheckName, cut: Cut, number: int, phases: frozenset[str]) -> Check:
    subject, fleet = bench.subjects[0], bench.managed
    before = (await fleet.published())[(await bench.node.config(subject.name)).digest]
    original = await bench.published(subject)
    trial = twin(await fleet.manifest(original), original.digest, number, bench.plan.padding_bytes)
    digest = await fleet.publish(trial.manifest, trial.contents)
    bench.say(f"{subject.name}: killing the node while it takes {trial.manifest.reference}")
    limits = bench.board.limits
    started = await fleet.roll_out(trial.manifest.reference, bench.name, deadline_s=limits.update_s + limits.recovery_s)
    phase = await _seen(bench, subject.name, digest, phases, limits.update_s)
    cut_s = time.monotonic()
    await cut()
    fault = await _back(bench, limits.recovery_s)
    back_s = time.monotonic() - cut_s
    fault = fault or await _whole(bench, subject, {before.digest, digest}, limits.recovery_s)
    if fault:
        return Check(name, "failed", f"killed in phase {phase}: {fault}", subject.name)
    ended = await fleet.follow(started.id, timeout_s=2 * limits.update_s + limits.recovery_s)
    fault = await _settled(bench, subject, digest if ended.state == "completed" else before.digest, limits.update_s)
    told = f"killed in phase {phase}, ready again after {back_s:.1f} s, the rollout {_ended(ended.state, before)}"
    figures = {"ready_after_s": back_s, "limit_s": limits.recovery_s}
    return Check(name, "failed" if fault else "passed", f"{fault}; {told}" if fault else told, subject.name, figures)


async def _seen(bench: Bench, model: str, digest: str, phases: frozenset[str], within_s: float) -> str:
    """The phase in which the update is, once it is one of `phases` or past them."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while loop.time() < end_s:
        report = (await bench.managed.node(bench.name)).reported.get(model)
        if report is not None and report.digest == digest and report.phase in (*phases, "active"):
            return report.phase
        if report is not None and report.digest == digest and report.phase in ("failed", "reverted"):
            raise FoothillError("upstream_failed", f"The update failed by itself: {plain(report.error)}")
        await asyncio.sleep(_POLL_S)
    raise FoothillError("deadline_exceeded", f"The node did not begin the update within {within_s:g} s.")


async def _back(bench: Bench, within_s: float) -> str:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while loop.time() < end_s:
        if await bench.node.is_ready():
            return ""
        await asyncio.sleep(_BACK_POLL_S)
    return f"it is not ready after {within_s:g} s"


async def _whole(bench: Bench, subject: Subject, allowed: set[str], within_s: float) -> str:
    """Old or new, and nothing between, and what it serves computes what it should."""
    served = await served_by(bench, subject.name, within_s)
    if served not in allowed:
        return f"it serves {served}, which is neither the old bundle nor the new one"
    try:
        check = await parity(bench.node, await bench.node.subject(subject.name))
    except FAULTS as error:
        return plain(str(error))
    return check.detail if check.outcome == "failed" else ""


async def _settled(bench: Bench, subject: Subject, wanted: str, within_s: float) -> str:
    """The node must come to what its fleet says of it."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    served = await served_by(bench, subject.name, within_s)
    while served != wanted and loop.time() < end_s:
        await asyncio.sleep(_BACK_POLL_S)
        served = await served_by(bench, subject.name, within_s)
    return "" if served == wanted else f"it serves {served} after the rollout, not {wanted}"


def _ended(state: str, before: Published) -> str:
    return "completed" if state == "completed" else f"went back to {before.reference}"
