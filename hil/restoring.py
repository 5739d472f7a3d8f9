"""Putting the node back as it was found, whatever has happened to it meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

import msgspec

from contracts.acceptance import Check
from contracts.errors import FoothillError
from hil.bench import Bench
from hil.checks.activation import served_by, switch
from hil.checks.golden import parity
from hil.checks.guarded import guarded
from hil.fleet import FleetNode
from hil.http_port import plain

_FLEET_S = 60.0


class Standing(NamedTuple):
    """Digests of what serves a model, and of what it would go back to ("" nothing)."""

    current: str
    previous: str


def way_back(now: Standing, before: Standing) -> tuple[str, ...]:
    """What to roll out, in order, so that both digests are again what they were: what served last becomes the
    previous one. Pure."""
    if now.current == before.current and before.previous in ("", now.previous, before.current):
        return ()
    detour = before.previous not in ("", before.current, now.current)
    return (before.previous, before.current) if detour else (before.current,)


async def put_back(bench: Bench) -> list[Check]:
    """Every model at the bundle it had, and at the one it would go back to; models that were not there are gone.

    Says what could not be put back, and what to type then. Also the golden parity of previous bundles, which serve
    for a moment on the way.
    """
    if bench.found is None:
        return [Check("restored", "passed", "nothing was changed")]
    bench.say("putting the node back as it was found")
    faults: list[str] = []
    notes: list[str] = []
    checks: list[Check] = []
    await _revived(bench, faults)
    try:
        await _reached(bench)
        await _ended(bench, faults)
        await _withdrawn(bench, faults)
        for model in bench.found.desired:
            checks += await _restored(bench, bench.found, model, faults)
        notes += await _left_over(bench, bench.found)
    except FoothillError as error:
        faults.append(f"the fleet manager does not answer, the node is left as it is: {plain(error.message)}")
        faults += [f"then: {_command(seen.bundle, bench.name)}" for seen in bench.bundles]
    told = ", ".join(f"{model} {digest[7:19]}" for model, digest in bench.found.desired.items())
    detail = "; ".join([*faults, *notes] if faults else [f"as found: {told or 'no model'}", *notes])
    return [*checks, Check("restored", "failed" if faults else "passed", detail)]


async def _revived(bench: Bench, faults: list[str]) -> None:
    """A node that was killed and did not come back gets another chance."""
    if await bench.node.is_ready() or bench.board.restart is None:
        return
    try:
        await bench.do(bench.board.restart)
    except FoothillError as error:
        faults.append(f"it is away and could not be restarted: {error.message}")


async def _reached(bench: Bench) -> None:
    """Waits for a fleet manager that starts anew. Raises FoothillError when it stays away."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + min(_FLEET_S, bench.board.limits.update_s)
    while True:
        try:
            await bench.managed.nodes()
            return
        except FoothillError as error:
            if not error.retryable or loop.time() > end_s:
                raise
        await asyncio.sleep(1.0)


async def _ended(bench: Bench, faults: list[str]) -> None:
    """Rollouts of ours that still run."""
    for rollout_id in bench.managed.rollouts:
        fault = await _end(bench, rollout_id)
        faults += [fault] if fault else []


async def _end(bench: Bench, rollout_id: str) -> str:
    try:
        if not (await bench.managed.rollout(rollout_id)).ended:
            with suppress(FoothillError):
                await bench.managed.abort(rollout_id)
            await bench.managed.follow(rollout_id, timeout_s=bench.board.limits.update_s)
    except FoothillError as error:
        return f"rollout {rollout_id} has not ended: {plain(error.message)}"
    return ""


async def _withdrawn(bench: Bench, faults: list[str]) -> None:
    assert bench.found is not None
    now = await bench.managed.node(bench.name)
    for model in set(now.desired) - set(bench.found.desired):
        with suppress(FoothillError):
            await bench.managed.withdraw(bench.name, model)
    left = set((await bench.managed.node(bench.name)).desired) - set(bench.found.desired)
    faults += [f"{model} is left there: `foothill fleet node withdraw {bench.name} {model}`" for model in sorted(left)]


async def _restored(bench: Bench, found: FleetNode, model: str, faults: list[str]) -> list[Check]:
    checks = []
    published = await bench.managed.published()
    before = _standing(found, model)
    if before.previous not in published:
        before = before._replace(previous="")
    for digest in way_back(_standing(await bench.managed.node(bench.name), model), before):
        reference = published[digest].reference
        fault = await switch(bench, model, reference, digest)
        if digest == before.previous and not fault and bench.node.has_admin:
            checks.append(await guarded("golden", model, _previous(bench, model)))
        if fault:
            faults.append(f"{model}: {fault}; {_command(reference, bench.name)}")
    fault = await _served(bench, model, before.current)
    faults += [fault] if fault else []
    return checks


async def _served(bench: Bench, model: str, wanted: str) -> str:
    """What is wrong with it, "" when nothing is."""
    try:
        served = await served_by(bench, model, bench.board.limits.update_s)
    except FoothillError as error:
        return plain(error.message)
    return "" if served == wanted else f"{model} is served from {served}, and was from {wanted}"


async def _previous(bench: Bench, model: str) -> Check:
    held = await parity(bench.node, await bench.node.subject(model))
    return msgspec.structs.replace(held, detail=f"the previous bundle: {held.detail}")


async def _left_over(bench: Bench, found: FleetNode) -> list[str]:
    """What a model would go back to, where it had nothing or what it had is published no more."""
    now = await bench.managed.node(bench.name)
    published = await bench.managed.published()
    left = []
    for model in found.desired:
        previous, before = _standing(now, model).previous, _standing(found, model).previous
        if previous not in ("", before):
            name = published[previous].reference if previous in published else previous
            left.append(f"{model} would now go back to {name}, and before to {before or 'nothing'}")
    return left


def _command(reference: str, node: str) -> str:
    """What an operator types to have it back."""
    return f"`foothill fleet rollout start {reference} --nodes {node} --gate health`"


def _standing(node: FleetNode, model: str) -> Standing:
    report = node.reported.get(model)
    return Standing(node.desired.get(model, ""), report.previous if report is not None else "")
