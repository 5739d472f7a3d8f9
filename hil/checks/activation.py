"""Activation under load: another version takes over and gives way again, and no request fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from contracts.acceptance import Check
from contracts.errors import FoothillError
from hil.bench import Bench
from hil.checks.guarded import of_each
from hil.http_port import plain
from hil.load import Tally, closed_loop
from hil.node import FAULTS, Subject
from hil.trials import twin

_POLL_S = 0.05
_NUMBER = 1


async def activation(bench: Bench) -> list[Check]:
    return await of_each(bench, "activation", _activation)


async def _activation(bench: Bench, subject: Subject) -> Check:
    fleet, before = bench.managed, await bench.published(subject)
    bench.say(f"{subject.name}: publishing a twin of {before.reference}")
    trial = twin(await fleet.manifest(before), before.digest, _NUMBER, bench.plan.padding_bytes)
    digest = await fleet.publish(trial.manifest, trial.contents)
    async with loading(bench, subject) as loaded:
        bench.say(f"{subject.name}: switching to {trial.manifest.reference} under load, and back")
        fault = await switch(bench, subject.name, trial.manifest.reference, digest)
        fault = fault or await switch(bench, subject.name, before.reference, before.digest)
    tally = loaded()
    fault = "; ".join(filter(None, (fault, fault_of(tally))))
    if not fault and not tally.digests[digest]:
        fault = "the new version was active, and gave no answer"
    told = f"{tally.answered} answers during two switches, {tally.digests[digest]} by the new version, {_failed(tally)}"
    figures = {
        "answered": float(tally.answered),
        "failed": float(tally.failed + tally.refused),
        "by_new_version": float(tally.digests[digest]),
        "p99_ms": tally.latencies.quantile(99),
    }
    outcome = f"{fault}; {told}" if fault else told
    return Check("activation", "failed" if fault else "passed", outcome, subject.name, figures)


async def switch(bench: Bench, model: str, reference: str, digest: str) -> str:
    """Rolls `reference` out to the node; what went wrong, "" once it answers from it."""
    limit_s = bench.board.limits.update_s
    try:
        started = await bench.managed.roll_out(reference, bench.name, deadline_s=limit_s)
        ended = await bench.managed.follow(started.id, timeout_s=2 * limit_s)
        served = await served_by(bench, model, limit_s)
    except FAULTS as error:
        return plain(str(error) or type(error).__name__)
    if ended.state != "completed":
        return f"the rollout of {reference} ended as {ended.state}: {plain(ended.reason)}"
    return "" if served == digest else f"the rollout of {reference} completed, and the node serves {served}"


@asynccontextmanager
async def loading(bench: Bench, subject: Subject) -> AsyncIterator[Callable[[], Tally]]:
    """Steady load meanwhile. What it came to can be asked for afterwards."""
    ending = asyncio.Event()
    shoot = await bench.shoot_at(subject)
    load = asyncio.create_task(closed_loop(shoot, concurrency=bench.plan.switch_concurrency, until=ending.is_set))
    try:
        yield load.result
    finally:
        ending.set()
        await asyncio.gather(load, return_exceptions=True)


async def served_by(bench: Bench, model: str, within_s: float) -> str:
    """The digest of the bundle that serves `model`, waiting for it. Raises FoothillError `deadline_exceeded`."""
    loop = asyncio.get_running_loop()
    end_s, last = loop.time() + within_s, ""
    while loop.time() < end_s:
        try:
            return (await bench.node.config(model)).digest
        except FAULTS as error:
            last = str(error)
        await asyncio.sleep(_POLL_S)
    raise FoothillError("deadline_exceeded", f"{model} is not served after {within_s:g} s: {last}")


def fault_of(tally: Tally) -> str:
    bad = tally.failed + tally.refused
    return f"{bad} of {bad + tally.answered} requests failed ({tally.faults[0]})" if bad else ""


def _failed(tally: Tally) -> str:
    return f"{tally.failed + tally.refused} failed"
