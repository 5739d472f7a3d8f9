"""`foothill demo`: the whole story on real input, told while it happens, with a report of what was measured."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console

from fleet.api import RolloutRequest, RolloutView
from foothill.demo import figures, places
from foothill.demo.folder import state_folder
from foothill.demo.narrator import Narrator
from foothill.demo.report import print_report, write_report
from foothill.demo.traffic import Call, Crowd, Front, Outcome, Sample, Way, make_calls
from foothill.processes import Processes, terminate_as_interrupt
from foothill.site import EDGES, Machine, MachineError
from runtime import regions

if TYPE_CHECKING:
    from model_compiler.digits.recipe import DigitsBundles
    from model_compiler.progress import Step

CLIENTS = 80
CALLERS = 64
PACE_PER_S = 100.0
"""Every pass meets the same load, well below what one small machine can serve."""
_SEED = 20
_GOOD_S, _BAD_S = 120.0, 180.0
_STEPS = ("Compile", "Start", "Roll out", "Route", "Edge alone", "All cloud", "Bad version")


class DemoOptions(msgspec.Struct, frozen=True):
    """`state` None: a temporary folder, removed when all went well. `quick` trains less; `distances` off: no delays."""

    report: Path | None = None
    requests: int = 2000
    distances: bool = True
    quick: bool = False
    state: Path | None = None


def demo(options: DemoOptions) -> None:
    """Tells the story and prints the report. Raises MachineError when part of it did not come true, ProcessError."""
    console = Console()
    started_s = time.monotonic()
    with terminate_as_interrupt(), state_folder(options.state, console) as state:
        with Processes(state / "logs") as processes, Narrator(console, _STEPS) as narrator:
            bundles = _compile(state, options, narrator)
            crowd = places.sample(CLIENTS, _SEED, regions.load(), places.database_path())
            machine = _start(state, processes, bundles, crowd, options, narrator)
            good = _roll_out(machine, narrator)
            told = asyncio.run(_route_and_break(machine, bundles, crowd, options, narrator))
        report = _report(told, good, bundles, crowd, options, time.monotonic() - started_s)
        print_report(report, console)
        if options.report is not None:
            write_report(report, options.report)
            console.print(f"The report is in {options.report}.", soft_wrap=True)
        wrong = _shortfalls(told)
        for line in wrong:
            console.print(f"[bold red]Not as it should be:[/bold red] {line}", soft_wrap=True)
        if wrong:
            raise MachineError("Not all of the story came true; the lines above say what did not.")


class _Told(msgspec.Struct, frozen=True):
    """What the passes and the bad rollout gave."""

    hybrid: list[Outcome]
    edge: list[Outcome]
    cloud: list[Outcome]
    during_bad: list[Outcome]
    hybrid_bytes: int
    cloud_bytes: int
    bad: RolloutView


def _shortfalls(told: _Told) -> list[str]:
    """What did not come true, one line each."""
    wrong = []
    errors = Counter(o.error for o in (*told.hybrid, *told.edge, *told.cloud, *told.during_bad) if not o.ok)
    wrong += [f"{count} requests failed: {error}" for error, count in errors.most_common(3)]
    if strays := sum(outcome.ok and outcome.tier != "edge" for outcome in told.edge):
        wrong.append(f"{strays} requests of the pass at the edge alone were answered by the cloud.")
    bad = told.bad
    if bad.state != "rolled-back" or bad.gate is None or bad.gate.decision != "reject":
        wrong.append(f"The bad version was not rejected by the gate: {bad.state}. {bad.reason}")
    return wrong


def _compile(state: Path, options: DemoOptions, narrator: Narrator) -> DigitsBundles:
    """Imported here: torch is heavy, and nothing else of the demo needs it."""
    from model_compiler.digits.recipe import FULL, QUICK, compile_digits

    with narrator.step("Compile") as show:
        done: dict[str, float] = {}

        def heard(step: Step) -> None:
            done[f"{step.bundle} {step.stage}"] = step.done
            show(f"{step.bundle}: {step.stage}", sum(done.values()) / _COMPILE_STAGES)

        bundles = compile_digits(state / "bundles", profile=QUICK if options.quick else FULL, progress=heard)
        show("a teacher, an int8 student, and a bad one", 1.0)
    return bundles


def _start(
    state: Path,
    processes: Processes,
    bundles: DigitsBundles,
    crowd: Sequence[places.ClientPlace],
    options: DemoOptions,
    narrator: Narrator,
) -> Machine:
    with narrator.step("Start") as show:
        started = itertools.count(1)
        machine = Machine(
            state,
            processes,
            relay=True,
            distances=options.distances,
            client_regions={client.region for client in crowd},
            geoip_database=str(places.database_path()),
            say=lambda line: show(line, next(started) / _START_STEPS),
        )
        machine.start_core()
        for packed in (bundles.cloud, bundles.edge, bundles.bad):
            machine.fleet().publish(packed.directory)
        machine.start_serving()
        for name in EDGES:
            machine.join(name)
        show("broker, fleet, cloud, router, 3 edge nodes", 1.0)
    return machine


def _roll_out(machine: Machine, narrator: Narrator) -> RolloutView:
    with narrator.step("Roll out") as show:
        request = RolloutRequest(bundle="digits-edge@1", nodes=tuple(EDGES))
        view = machine.roll_out(request, timeout_s=_GOOD_S, each=lambda view: show(*_progress_of(view)))
        if view.state != "completed":
            raise MachineError(f"The rollout of {view.bundle} ended as {view.state}: {view.reason}")
        machine.wait_served(timeout_s=_GOOD_S)
        show(f"{view.bundle} on {view.nodes} nodes, canary first", 1.0)
    return view


async def _route_and_break(
    machine: Machine,
    bundles: DigitsBundles,
    crowd: Sequence[places.ClientPlace],
    options: DemoOptions,
    narrator: Narrator,
) -> _Told:
    """Three passes over the same calls, then the bad version under traffic that does not stop."""
    from foothill.demo.samples import digit_samples

    samples = await asyncio.to_thread(digit_samples, options.requests, _SEED)
    calls = make_calls(samples, len(crowd), options.requests, _SEED)
    urls = machine.urls
    front = Front(
        urls.router,
        urls.cloud,
        bundles.cloud.manifest.labels,
        {client.region: machine.connect_to(client.region) for client in crowd},
    )
    async with Crowd(front, crowd) as callers:
        hybrid, hybrid_bytes = await _pass(machine, callers, calls, "hybrid", narrator)
        edge, _ = await _pass(machine, callers, calls, "edge", narrator)
        cloud, cloud_bytes = await _pass(machine, callers, calls, "cloud", narrator)
        bad, during = await _push_bad(machine, callers, samples, len(crowd), narrator)
    return _Told(hybrid, edge, cloud, during, hybrid_bytes, cloud_bytes, bad)


async def _pass(
    machine: Machine, callers: Crowd, calls: Sequence[Call], way: Way, narrator: Narrator
) -> tuple[list[Outcome], int]:
    """One pass over all calls, and the bytes it exchanged with the cloud tier, audits included."""
    title, told = _PASSES[way]
    with narrator.step(title) as show:
        before = machine.cloud_bytes()
        done = itertools.count(1)

        def heard(_: Outcome) -> None:
            number = next(done)
            show(f"{number:,} of {len(calls):,} requests", number / len(calls))

        outcomes = await callers.run(calls, way, concurrency=CALLERS, per_second=PACE_PER_S, on_outcome=heard)
        exchanged = await _when_quiet(machine) - before
        show(f"{len(calls):,} requests{told}", 1.0)
    return outcomes, exchanged


async def _push_bad(
    machine: Machine, callers: Crowd, samples: Sequence[Sample], clients: int, narrator: Narrator
) -> tuple[RolloutView, list[Outcome]]:
    with narrator.step("Bad version") as show:
        ended = asyncio.Event()
        endless = itertools.chain.from_iterable(
            make_calls(samples, clients, len(samples), seed) for seed in itertools.count(_SEED + 1)
        )
        traffic = asyncio.create_task(
            callers.run(endless, "hybrid", concurrency=CALLERS, per_second=PACE_PER_S, until=ended)
        )
        try:
            request = RolloutRequest(bundle="digits-edge@2", nodes=tuple(EDGES))
            view = await asyncio.to_thread(
                machine.roll_out, request, timeout_s=_BAD_S, each=lambda view: show(*_progress_of(view))
            )
        finally:
            ended.set()
            outcomes = await traffic
        show(f"{view.state} while {len(outcomes):,} requests went on", 1.0)
    return view, outcomes


async def _when_quiet(machine: Machine) -> int:
    """The relay's byte count once audits, which run after the answers, no longer change it."""
    last, since_s = -1, time.monotonic()
    while (now := machine.cloud_bytes()) != last or time.monotonic() - since_s < _QUIET_S:
        if now != last:
            last, since_s = now, time.monotonic()
        await asyncio.sleep(0.1)
    return now


def _report(
    told: _Told,
    good: RolloutView,
    bundles: DigitsBundles,
    crowd: Sequence[places.ClientPlace],
    options: DemoOptions,
    seconds: float,
) -> figures.Report:
    from model_compiler.pack import read_measurements

    student = bundles.edge.manifest.artifacts[0]
    if student.confidence is None:
        raise MachineError(f"{bundles.edge.manifest.reference} carries no confidence rule.")
    measured = read_measurements(bundles.edge)
    if measured.teacher is None:
        raise MachineError(f"{bundles.edge.manifest.reference} was not measured beside its teacher.")
    small, big = measured.artifacts[student.file], measured.teacher
    if small.latency_ms is None or big.latency_ms is None:
        raise MachineError(f"{bundles.edge.manifest.reference} was not timed on this machine.")
    bad = told.bad
    story = figures.Story(
        epsilon=student.confidence.epsilon,
        delta=student.confidence.delta,
        bytes_off_site=figures.OffSite(told.hybrid_bytes, told.cloud_bytes),
        models=figures.Models(
            teacher=figures.ModelSize(big.bytes, big.latency_ms),
            student_int8=figures.ModelSize(small.bytes, small.latency_ms),
        ),
        rollout=figures.RolloutFigures(good.nodes, good.seconds or 0.0),
        bad_rollout=figures.BadRollout(
            stopped_stage=bad.stopped_stage or 0,
            exposed_nodes=bad.exposed_nodes,
            reverted_nodes=bad.reverted_nodes,
            seconds=bad.seconds or 0.0,
            seconds_to_decision=bad.seconds_to_decision or 0.0,
            seconds_to_revert=bad.seconds_to_revert or 0.0,
            reason=bad.reason,
            audits=_audits(bad)[1],
        ),
        failed_elsewhere=sum(not outcome.ok for outcome in told.during_bad),
        countries=len({client.country for client in crowd}),
        clients=len(crowd),
        wan=options.distances,
        seconds=seconds,
    )
    return figures.build_report(told.hybrid, told.edge, told.cloud, story)


def _audits(view: RolloutView) -> tuple[int, int]:
    """Those that differ from the cloud, and all, of the new version."""
    streams = view.gate.streams if view.gate is not None else ()
    return next(((one.k, one.n) for one in streams if one.stream == "disagreeing"), (0, 0))


_PASSES: dict[Way, tuple[str, str]] = {
    "hybrid": ("Route", ", doubtful ones escalated"),
    "edge": ("Edge alone", ", never escalated"),
    "cloud": ("All cloud", ", straight to the cloud"),
}
_QUIET_S = 1.5
"""Longer than the longest distance takes there and back, with a new connection."""
_COMPILE_STAGES = 15
_START_STEPS = 11


def _progress_of(view: RolloutView) -> tuple[str, float]:
    said = f"{view.bundle}: stage {view.stage} of {len(view.stages)}, {view.state}"
    if view.gate is not None and view.state in ("judging", "reverting"):
        said += ", {} of {} audits differ from the cloud".format(*_audits(view))
    return said, (len(view.active) + len(view.reverted)) / max(1, view.nodes)
