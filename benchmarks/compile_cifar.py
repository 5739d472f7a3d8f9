"""CIFAR-10 through the whole compiler: a teacher, and per seed a student pruned from it, distilled, quantized.

`python -m benchmarks.compile_cifar --cache DIR [--seeds 5]`; FOOTHILL_ASSETS has the pictures. The teacher is trained
once, in at most an hour of one core, and kept in the cache with every stage of every student.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from benchmarks import cifar10
from benchmarks.report import table
from contracts.boards import BOARDS
from examples.cifar10 import nets
from model_compiler.bootstrap import Interval
from model_compiler.data.samples import Data, Floats, first
from model_compiler.errors import CompileError
from model_compiler.learning.augment import Augment
from model_compiler.learning.train import Schedule
from model_compiler.measure import ROUNDS, times_ms
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle, report_of
from model_compiler.plan import CPU_INT8_FILE, Budget, Learning, Net, Plan, Prune, artifacts_for
from model_compiler.progress import Progress, Step, silent
from model_compiler.replay import Ends, outputs_of
from model_compiler.reporting.findings import Absent, Candidate, Candidates, Score
from model_compiler.reporting.findings import Learning as Learned
from model_compiler.reporting.report import JSON_FILE, read_report
from model_compiler.stages import Stages

TARGETS = ("cpu-x86", "cpu-arm", "jetson-orin-nano")
LEARNING = Learning(
    schedule=Schedule(epochs=5, peak=3e-3, weight_decay=0.02),
    augment=Augment(flip=True, shift=4, views=4),
    ways=("plain", "kd", "dkd", "dist", "hints"),
    trial=Schedule(epochs=1, peak=3e-3, weight_decay=0.02),
)
BUDGET = Budget(max_drop_points=0.5, min_speed_up=5.0)
_ENDS = Ends("image", ("logits",))
_OWN_STAGES = ("prune", "try ways", "distil", "qat")


class Row(msgspec.Struct, frozen=True):
    """One seed: the int8 file for CPUs against the teacher in fp32, on CIFAR-10's test pictures.

    `points`: accuracy won (lost: below 0) with its 95 % interval. `times_faster`: medians of runs in turns, at batch 1,
    on one thread.
    """

    seed: int
    way: str
    teacher_percent: float
    student_percent: float
    points: str
    fewer_bytes_percent: float
    times_faster: float
    cpu_minutes: float


class Outcome(msgspec.Struct, frozen=True):
    rows: Sequence[Row]
    points: Interval
    teacher_cpu_minutes: float


def measure(cache: Path, seeds: Sequence[int], *, progress: Progress = silent) -> Outcome:
    """Compiles the teacher once and a student per seed. Raises CompileError without the pictures."""
    data, labels = cifar10.load(cache)
    taught = cifar10.teacher(cache, data)
    net = _teacher(taught)
    with tempfile.TemporaryDirectory() as out:
        cloud = compile_bundle(_cloud(net, data, labels), Path(out) / "cloud", stages=_stages(cache), progress=progress)
        rows, differences, files = [], [], {"teacher": cloud.first_artifact}
        for seed in seeds:
            student = Path(out) / f"edge-{seed}"
            row, difference = _one(net, data, labels, cloud, student, cache, seed, progress)
            rows.append(row)
            differences.append(difference)
            files[str(seed)] = student / CPU_INT8_FILE
        return Outcome(_timed(rows, files, data), _mean(differences), taught.cpu_minutes)


def _timed(rows: Sequence[Row], files: Mapping[str, Path], data: Data) -> list[Row]:
    """All files in turns, in one go at the end: the compilations' own timings lie hours apart."""
    medians = {
        name: statistics.median(times) for name, times in times_ms(files, first(data.test, ROUNDS), _ENDS).items()
    }
    faster = {name: round(medians["teacher"] / median, 2) for name, median in medians.items()}
    return [msgspec.structs.replace(row, times_faster=faster[str(row.seed)]) for row in rows]


def test_logits(cache: Path, seed: int) -> tuple[Floats, Floats]:
    """The int8 student's and the teacher's, (10,000, 10) each, of the test pictures; compiled or found in the cache."""
    data, labels = cifar10.load(cache)
    net = _teacher(cifar10.teacher(cache, data))
    with tempfile.TemporaryDirectory() as out:
        cloud = compile_bundle(_cloud(net, data, labels), Path(out) / "cloud", stages=_stages(cache), report=False)
        plan = _edge(net, data, labels, cloud, seed)
        student = compile_bundle(plan, Path(out) / "edge", stages=_stages(cache), report=False)
        return outputs_of(student.file(CPU_INT8_FILE), data.test, _ENDS), outputs_of(
            cloud.first_artifact, data.test, _ENDS
        )


def _one(
    net: Net, data: Data, labels: tuple[str, ...], cloud: Packed, out: Path, cache: Path, seed: int, progress: Progress
) -> tuple[Row, Interval]:
    stages = _stages(cache)
    compile_bundle(_edge(net, data, labels, cloud, seed), out, stages=stages, progress=progress)
    report = read_report(report_of(out) / JSON_FILE).findings
    student, teacher = _chosen(report.candidates)
    spent = sum(ran.cpu_s for ran in stages.ran if ran.stage in _OWN_STAGES) / 60
    ours, theirs = student.score, teacher.score
    if not (isinstance(ours, Score) and isinstance(theirs, Score) and ours.against_reference is not None):
        raise CompileError("The student was not measured beside its teacher.")
    difference = ours.against_reference
    row = Row(
        seed=seed,
        way=_way(report.learning),
        teacher_percent=round(100 * theirs.value, 2),
        student_percent=round(100 * ours.value, 2),
        points=f"{100 * difference.mean:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})",
        fewer_bytes_percent=round(100 * (1 - student.bytes / teacher.bytes), 1),
        times_faster=0.0,  # timed with all others at the end
        cpu_minutes=round(spent, 1),
    )
    return row, difference


def _chosen(candidates: Candidates | Absent) -> tuple[Candidate, Candidate]:
    """The int8 file for CPUs, and the teacher."""
    if not isinstance(candidates, Candidates) or not isinstance(candidates.reference, Candidate):
        raise CompileError("The report has no candidates beside a teacher.")
    return next(each for each in candidates.tried if each.file == CPU_INT8_FILE), candidates.reference


def _way(learned: Learned | Absent) -> str:
    tried = learned.ways if isinstance(learned, Learned) else ()
    return next((each.way for each in tried if each.winner), "")


def _teacher(taught: cifar10.Taught) -> Net:
    return Net(f"cifar10 teacher {cifar10.WIDTH}", lambda: nets.teacher(cifar10.WIDTH), weights=taught.weights)


def _cloud(net: Net, data: Data, labels: tuple[str, ...]) -> Plan:
    return Plan(
        name="cifar10-cloud",
        version="1",
        model="cifar10",
        task="classification",
        tier="cloud",
        data=data,
        artifacts=artifacts_for(tuple(BOARDS), ("fp32",)),
        how=_HOW,
        student=net,
        preprocess=cifar10.PREPROCESS,
        labels=labels,
    )


def _edge(net: Net, data: Data, labels: tuple[str, ...], cloud: Packed, seed: int) -> Plan:
    return Plan(
        name="cifar10-edge",
        version="1",
        model="cifar10",
        task="classification",
        tier="edge",
        data=data,
        artifacts=artifacts_for(TARGETS, ("int8", "fp16", "fp32")),
        how=_HOW,
        teacher=net,
        prune=Prune("magnitude", 0.5),
        learning=LEARNING,
        budget=BUDGET,
        cloud=cloud,
        preprocess=cifar10.PREPROCESS,
        labels=labels,
        seed=seed,
    )


_HOW = "the 10,000 test pictures of CIFAR-10, which nothing was fitted on"


def _stages(cache: Path) -> Stages:
    return Stages(cache / "stages")


def _mean(differences: Sequence[Interval]) -> Interval:
    """Over the seeds: the mean of the differences, and the widest that any seed's interval reaches."""
    return Interval(
        sum(each.mean for each in differences) / len(differences),
        min(each.low for each in differences),
        max(each.high for each in differences),
    )


def main(
    cache: Annotated[Path, typer.Option(help="Where pictures, teacher and stages are kept.")],
    seeds: Annotated[int, typer.Option(help="How many students.", min=1)] = 5,
) -> None:
    """Prints one row a seed."""
    outcome = measure(cache, range(seeds), progress=_told)
    print(table(outcome.rows))
    points = outcome.points
    print(f"\nMean of the seeds: {100 * points.mean:+.2f} points against the teacher.")
    print(f"The seeds' intervals lie within {100 * points.low:+.2f} to {100 * points.high:+.2f}.")
    print(f"The teacher took {outcome.teacher_cpu_minutes} CPU-minutes.")


def _told(step: Step) -> None:
    if step.done in (0.0, 1.0):
        print(step.bundle, step.stage, "begins" if step.done == 0.0 else "done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
