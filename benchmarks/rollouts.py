"""Are bad versions caught at the canary, and good ones let through? Whole rollouts, without a network.

`python -m benchmarks.rollouts [--rollouts 10000] [--json FILE]`

Each rollout is the fleet's own state machine (`fleet/rollouts`) and gates (`fleet/judging`) with simulated nodes: an
old version whose rates are known serves first, and what it is seen to do is all that the gate knows of it. Then a
version that is as good, or worse in one way, goes out: to a canary of three nodes, to a quarter of twenty, to all.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import typer

from benchmarks.report import table
from contracts.messages import ModelReport
from contracts.quality import Counts
from contracts.risk import binomial
from fleet.judging.aims import GateSettings, Tally, aims_for
from fleet.judging.ruling import Ruling
from fleet.rollouts.advance import Orders, advance, begin
from fleet.rollouts.events import Assigned, Event, Heard, Judged, Tick
from fleet.rollouts.nodes import TOLD
from fleet.rollouts.plan import Gate, Plan, Policy, plan_stages
from fleet.rollouts.rollout import FINAL

ROLLOUTS = 10_000
NODES, CANARY = 20, 3
MINUTE_S, SILENCE_S = 60.0, 24 * 3600.0
RUNS, AUDITS, LOOKS = 600, 30, 6
"""Of each node in a minute: ten runs a second, of which one in twenty is audited, and a look each ten seconds."""
_BASELINE_RUNS, _BASELINE_AUDITS, _BASELINE_LOOKS = 20_000, 5_000, 2_000
_NEW, _OLD = "sha256:" + "b" * 64, "sha256:" + "a" * 64
_USUAL_BUCKET, _BUCKETS = 14.0, 30


class Version(msgspec.Struct, frozen=True):
    """True rates of a version. `slower` in buckets of latency, two to an octave. `loads`: what becomes of it when a
    node takes it."""

    failed: float = 0.01
    disagreeing: float = 0.05
    doubtful: float = 0.20
    strained: float = 0.02
    slower: float = 0.0
    loads: Literal["well", "crashes", "hangs"] = "well"


GOOD = Version()
VERSIONS = {
    "as good": GOOD,
    "errors 3 % against 1 %": msgspec.structs.replace(GOOD, failed=0.03),
    "agreement 5 points lower": msgspec.structs.replace(GOOD, disagreeing=0.10),
    "latency x3": msgspec.structs.replace(GOOD, slower=3.17),
    "NaN in every answer": msgspec.structs.replace(GOOD, failed=1.0),
    "crashes when it is loaded": msgspec.structs.replace(GOOD, loads="crashes"),
    "hangs silently": msgspec.structs.replace(GOOD, loads="hangs"),
    "doubtful in 50 % against 20 %": msgspec.structs.replace(GOOD, doubtful=0.50),
    "never doubtful": msgspec.structs.replace(GOOD, doubtful=0.0),
    "short of memory in 40 % against 2 %": msgspec.structs.replace(GOOD, strained=0.40),
}


class Ended(msgspec.Struct, frozen=True):
    """`caught`: rolled back. `beyond`: nodes outside the canary that were ever told. `whole`: every node that was told
    has the version that it should have. `minutes` until the decision, simulated."""

    caught: bool
    beyond: int
    whole: bool
    minutes: float
    reason: str


class Row(msgspec.Struct, frozen=True):
    """Shares of rollouts, with the exact 95 % interval of `stopped`."""

    version: str
    rollouts: int
    stopped: float
    low: float
    high: float
    beyond_the_canary: int
    not_whole: int
    median_minutes: float
    most_minutes: float


class World:
    """Twenty nodes that obey, and what they would count."""

    def __init__(self, version: Version, rng: np.random.Generator, settings: GateSettings) -> None:
        self.version = version
        self.rng = rng
        self.now_s = 0.0
        names = [f"n{number:02}" for number in range(NODES)]
        plan = Plan(
            id="r",
            bundle="b@2",
            model="m",
            digest=_NEW,
            stages=plan_stages(names, (CANARY, "25%", "100%")),
            previous=dict.fromkeys(names, _OLD),
            policy=Policy(max_parallel=5, min_healthy_s=MINUTE_S, healthy_deadline_s=5 * MINUTE_S),
            gate=Gate(0, SILENCE_S),
        )
        old = counted(GOOD, rng, _BASELINE_RUNS, _BASELINE_LOOKS)
        audited = Tally(_BASELINE_AUDITS, int(rng.binomial(_BASELINE_AUDITS, GOOD.disagreeing)))
        self.ruling = Ruling(aims_for(old, audited, settings))
        self.sequence = 0
        self.told: dict[str, tuple[int, str]] = {}
        self.reporting: list[str] = []
        self.rollout, orders = begin(plan, names, 0.0)
        self._obey(orders)

    def run(self) -> Ended:
        while self.rollout.head.phase not in FINAL:
            self._minute()
        rollout = self.rollout
        canary, told = {*rollout.plan.stages[0]}, {*rollout.names(*TOLD)}
        caught = rollout.head.phase == "rolled-back"
        return Ended(
            caught=caught,
            beyond=len(told - canary),
            whole=all(self.told[name][1] == (_OLD if caught else _NEW) for name in told),
            minutes=(rollout.head.decided_at_s or 0.0) / 60,
            reason=rollout.head.reason,
        )

    def _minute(self) -> None:
        """Nodes report of what they were told, count what they serve, and a minute goes by."""
        reporting, self.reporting = self.reporting, []
        for name in reporting:
            for report in self._reports(name):
                self._feed(Heard(name, self.told[name][0], report, self.now_s))
        serving = self.rollout.count("settling", "healthy")
        if serving and self.rollout.head.phase not in FINAL:
            self.ruling = self.ruling.counted(counted(self.version, self.rng, serving * RUNS, serving * LOOKS))
            audits = serving * AUDITS
            differ = int(self.rng.binomial(audits, self.version.disagreeing))
            self.ruling = self.ruling.audited(Tally(audits, differ))
            self._feed(Judged(self.ruling.decision, self.ruling.reason, self.now_s))
        self.now_s += MINUTE_S
        self._feed(Tick(MINUTE_S, self.now_s))

    def _reports(self, name: str) -> Iterator[ModelReport]:
        digest = self.told[name][1]
        if digest == _OLD or self.version.loads == "well":
            yield ModelReport(digest, "active", serving=digest)
        elif self.version.loads == "crashes":
            yield ModelReport(digest, "failed", serving=_OLD, error="the engine crashed")

    def _feed(self, event: Event) -> None:
        self._obey(advance(self.rollout, event))

    def _obey(self, orders: Orders) -> None:
        for order in orders:
            self.sequence += 1
            self.told[order.node] = (self.sequence, order.digest)
            self.reporting.append(order.node)
            advance(self.rollout, Assigned(order.node, self.sequence))


def counted(version: Version, rng: np.random.Generator, runs: int, looks: int) -> Counts:
    """What nodes with so many runs and looks at their machines count."""
    failed = int(rng.binomial(runs, version.failed))
    judged = runs - failed
    buckets = np.rint(rng.normal(_USUAL_BUCKET + version.slower, 1.0, judged)).clip(0, _BUCKETS - 1).astype(np.int64)
    return Counts(
        runs=runs,
        failed=failed,
        judged=judged,
        doubtful=int(rng.binomial(judged, version.doubtful)),
        looks=looks,
        strained=int(rng.binomial(looks, version.strained)),
        latency=tuple(np.bincount(buckets, minlength=_BUCKETS).tolist()),
    )


def one(version: Version, seed: int, settings: GateSettings) -> Ended:
    return World(version, np.random.default_rng(seed), settings).run()


def measured(name: str, ended: list[Ended]) -> Row:
    stopped, count = sum(each.caught for each in ended), len(ended)
    minutes = [each.minutes for each in ended]
    return Row(
        version=name,
        rollouts=count,
        stopped=stopped / count,
        low=binomial.lower_bound(stopped, count, 0.025),
        high=binomial.upper_bound(stopped, count, 0.025),
        beyond_the_canary=sum(each.beyond > 0 for each in ended if each.caught),
        not_whole=sum(not each.whole for each in ended),
        median_minutes=statistics.median(minutes),
        most_minutes=max(minutes),
    )


def main(
    rollouts: Annotated[int, typer.Option(help="Of each version.", min=1)] = ROLLOUTS,
    seed: Annotated[int, typer.Option(help="Of the first.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Rolls out good and bad versions, again and again."""
    settings, rows = GateSettings(), []
    seeds = range(seed, seed + rollouts)
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for name, version in VERSIONS.items():
            ended = [*processes.map(one, repeat(version), seeds, repeat(settings), chunksize=50)]
            rows.append(measured(name, ended))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(
        table(rows),
        f"alpha {settings.alpha}, baseline delta {settings.baseline_delta}, beta {settings.beta}",
        sep="\n\n",
    )
    if json is not None:
        json.write_bytes(msgspec.json.encode(rows))


if __name__ == "__main__":
    typer.run(main)
