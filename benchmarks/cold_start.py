"""Cold start: what a start of a node takes for one model, from its artifact and from the graph that was kept of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE

import msgspec
import numpy as np

from benchmarks import bundles
from benchmarks.bundles import Served
from benchmarks.machine import pin
from benchmarks.report import Report, report
from benchmarks.rounds import Case, Profile, Ratio, Rounds, Run, interleaved, middle, ratio
from benchmarks.stage import ROOT, Stage
from benchmarks.told import Opened

NAME = "cold start"
ARTIFACT, FIRST, KEPT = "the artifact", "the first start of a bundle", "every other start"

NOTES = (
    "Each opening in a process of its own, in turns, on one core; the files are in the kernel's memory. `load ms`: "
    "until ONNX Runtime has the weights, `first answer ms`: until the golden inputs were answered right. The process's "
    "own start, of 0.3 to 0.4 s, is not in it.",
    f"`{ARTIFACT}`: nothing is kept. `{FIRST}` optimizes the graph, writes it, and opens what it wrote; `{KEPT}` maps "
    "what is kept. Each checks the digest of what it reads. `of artifact`: CPU time over that from the artifact, same "
    "round.",
    "`memory mb`: what the process has alone after the golden test; mapped weights are not in it, for the kernel may "
    "take them back.",
)


class ColdStartRow(msgspec.Struct, frozen=True):
    model: str
    case: str
    of_artifact: Ratio
    load_ms: float
    first_answer_ms: float
    cpu_ms: float
    memory_mb: float


async def measure(stage: Stage, profile: Profile) -> Report:
    served = bundles.efficientnet(stage.work) or bundles.mobilenet(stage.work)
    openings = {name: _Openings(stage, served, name) for name in (ARTIFACT, FIRST, KEPT)}
    cases: Mapping[str, Case] = {name: opening.case for name, opening in openings.items()}
    rounds = await interleaved(cases, profile, stage.pids)
    rows = [_row(served, name, opening, rounds) for name, opening in openings.items()]
    return report(NAME, rows, NOTES, [rounds])


class _Openings:
    """One kind of opening, and what each of them told."""

    def __init__(self, stage: Stage, served: Served, name: str) -> None:
        self._stage = stage
        self._packed = served.packed
        self._name = name
        self._caches = 0
        self.told: list[Opened] = []

    async def case(self, _: float) -> Run:
        """One opening, however long it takes."""
        told = await self._open()
        self.told.append(told)
        return Run(told.first_answer_ms / 1000.0, told.cpu_s, 0.0, np.array([told.first_answer_ms]))

    def median(self, field: str, runs: int) -> float:
        """Over the rounds that count, which are the last ones."""
        return float(np.median([getattr(told, field) for told in self.told[-runs:]]))

    async def _open(self) -> Opened:
        command = ["-m", "benchmarks.opened", str(self._packed.directory), self._packed.digest, *self._cache()]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, cwd=ROOT)
        pin(process.pid, self._stage.cores.server)
        output, _ = await process.communicate()
        return msgspec.json.decode(output, type=Opened)

    def _cache(self) -> tuple[str, ...]:
        if self._name == ARTIFACT:
            return ()
        self._caches += self._name == FIRST
        return (str(Path(self._stage.work, f"{self._name} {self._caches}")),)


def _row(served: Served, name: str, opening: _Openings, rounds: Rounds[str]) -> ColdStartRow:
    runs = rounds.runs[name]
    return ColdStartRow(
        model=served.packed.manifest.model,
        case=name,
        of_artifact=ratio(runs, rounds.runs[ARTIFACT], lambda run: run.server_cpu_s),
        load_ms=opening.median("load_ms", len(runs)),
        first_answer_ms=opening.median("first_answer_ms", len(runs)),
        cpu_ms=middle(runs, lambda run: run.server_cpu_s * 1000.0),
        memory_mb=opening.median("memory_bytes", len(runs)) / 1e6,
    )
