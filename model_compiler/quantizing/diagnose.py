"""Where an int8 file loses what its float model knows: noise at every place, points won back, causes, advice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import msgspec
import numpy as np

from model_compiler.data.samples import Samples
from model_compiler.metrics import Metric
from model_compiler.progress import Advance, unwatched
from model_compiler.quantizing.causes import Cause, Evidence, advice_for, causes_of, weight_causes
from model_compiler.quantizing.graph import Graph
from model_compiler.quantizing.judge import Judge, Score, few, points
from model_compiler.quantizing.noise import Local, answer_noise, answers_db, local_noise, round_alone
from model_compiler.quantizing.observe import Observations, observe
from model_compiler.quantizing.placement import Keep, weight_axis
from model_compiler.quantizing.places import Place, in_float, places_of
from model_compiler.quantizing.prepare import load_prepared
from model_compiler.quantizing.ranges import Table
from model_compiler.quantizing.sqnr import CEILING_DB
from model_compiler.replay import Ends

_FEWEST, _FEWEST_SCORED = 8, 100


class Quantize(Protocol):
    """`quantize_cpu`, `quantize_tensorrt`, or what is made of them."""

    def __call__(self, fp32: Path, out: Path, table: Table, *, keep: Mapping[str, Keep] = ...) -> None: ...


class Effort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most so many samples: `rows` for the noise at each place, `metric_rows` for the task metric, on which the
    `tried` noisiest places are tried, `range_rows` for what calibrated ranges are compared to.

    Large models are given fewer: together, so many numbers as `activations` and `metric_activations` are computed
    for a place. The clock decides nothing, so that a diagnosis is the same on any machine.
    """

    rows: int = 48
    tried: int = 10
    metric_rows: int = 1000
    range_rows: int = 256
    activations: float = 1e8
    metric_activations: float = 1e9

    def bounded(self, observations: Observations) -> Effort:
        """For the model of which these are the observations."""
        numbers = sum(int(seen.histogram.sum()) for seen in observations.tensors.values())
        a_row = max(1.0, numbers / observations.rows)
        most, most_scored = int(self.activations / a_row), int(self.metric_activations / a_row)
        return msgspec.structs.replace(
            self,
            rows=min(self.rows, max(_FEWEST, most)),
            metric_rows=min(self.metric_rows, max(_FEWEST_SCORED, most_scored)),
            range_rows=min(self.range_rows, max(_FEWEST, most_scored)),
        )


class Finding(msgspec.Struct, frozen=True):
    """One place of the model.

    `node` writes `tensor`, or takes it where it is the model's input; with `takers` in float nothing here is rounded.
    `sqnr_db`: this tensor rounded alone, the mean over its channels; `artifact_db`: the same in the int8 file, after
    all that was rounded before; `answer_db`: the answers when only this place is rounded. `gain`: points of the metric
    won back when this place is float and all else int8; `loss`: points lost when it is rounded and all else float;
    None where it was not tried.
    """

    node: str
    tensor: str
    takers: tuple[str, ...]
    sqnr_db: float
    artifact_db: float
    answer_db: float
    gain: float | None
    loss: float | None
    causes: tuple[Cause, ...]
    advice: str


class PlaceNoise(msgspec.Struct, frozen=True):
    """As of a Finding."""

    node: str
    tensor: str
    sqnr_db: float


class Diagnosis(msgspec.Struct, frozen=True):
    """The worst place first. Scores are of the metric on the same `samples`; `answer_db` is of the int8 file."""

    float_score: float
    int8_score: float
    samples: int
    answer_db: float
    findings: tuple[Finding, ...]


def diagnose(
    fp32: Path,
    int8: Path,
    observations: Observations,
    table: Table,
    samples: Samples,
    ends: Ends,
    metric: Metric,
    *,
    quantize: Quantize,
    literal: bool = False,
    effort: Effort | None = None,
    advance: Advance = unwatched,
) -> Diagnosis:
    """Compares `int8`, which `quantize` made of the prepared `fp32` with `table`, to it on `samples`.

    First every place is rounded alone in the float model: the noise at the answers shows each fault however many
    others there are (the order of Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.4).
    Then the noisiest are tried on the task metric, in real files. `samples` should not be those of the calibration.
    """
    effort = (effort or Effort()).bounded(observations)
    judge = Judge(few(samples, effort.metric_rows), ends, metric, literal)
    with TemporaryDirectory() as work:
        patient = _Patient(fp32, int8, table, quantize, judge, Path(work))
        return _examine(patient, observations, effort, advance)


def place_noise(
    fp32: Path,
    int8: Path,
    observations: Observations,
    samples: Samples,
    ends: Ends,
    *,
    literal: bool = False,
    effort: Effort | None = None,
) -> tuple[PlaceNoise, ...]:
    """Every place rounded alone, in the order of the graph: what a diagnosis begins with, and the quick part of it."""
    effort = (effort or Effort()).bounded(observations)
    exact, rounded = Graph(load_prepared(fp32)), Graph.read(int8)
    places = places_of(exact, rounded)
    with TemporaryDirectory() as work:
        found = local_noise(exact, rounded, places, few(samples, effort.rows), ends, Path(work), literal=literal)
    return tuple(
        PlaceNoise(place.node, place.tensor, each.simulated) for place, each in zip(places, found, strict=True)
    )


def rank(finding: Finding) -> tuple[float, float]:
    """Whole points lost first; what lies within a point by the noise at the answers, which chance in the samples moves
    less.

    Points won back do not count: a layer that is float also writes float, so that the place before a fault seems to win
    back what the fault costs; and nothing is won back alone where another fault still spoils everything.
    """
    return -math.floor(max(finding.loss or 0.0, 0.0)), finding.answer_db


def _examine(patient: _Patient, observations: Observations, effort: Effort, advance: Advance) -> Diagnosis:
    local = patient.local(effort)
    advance(0.1)
    alone = []
    for each in patient.alone(effort):
        alone.append(each)
        advance(0.1 + 0.4 * len(alone) / len(patient.places))
    worst = sorted(range(len(alone)), key=alone.__getitem__)[: effort.tried]
    scores = patient.scores()
    tried: dict[int, tuple[float, float]] = {}
    for index in worst:
        tried[index] = patient.try_place(patient.places[index], *scores)
        advance(0.5 + 0.4 * len(tried) / len(worst))
    causes = patient.causes(observations, effort)
    findings = [
        _finding(place, local[index], alone[index], tried.get(index), causes[index])
        for index, place in enumerate(patient.places)
    ]
    advance(1.0)
    ordered = (*sorted(findings, key=rank), *patient.unquantized())
    exact, rounded = (each.value for each in scores)
    answer_db = answers_db(*(each.answers for each in scores))
    return Diagnosis(exact, rounded, len(patient.judge.samples), answer_db, ordered)


class _Patient:
    """A float model, its int8 file and what is done to either to see what ails it."""

    def __init__(self, fp32: Path, int8: Path, table: Table, quantize: Quantize, judge: Judge, work: Path) -> None:
        self.fp32, self.int8, self.table, self.judge = fp32, int8, table, judge
        self._quantize, self._work = quantize, work
        self._exact, self._rounded = Graph(load_prepared(fp32)), Graph.read(int8)
        self.places = places_of(self._exact, self._rounded)

    def local(self, effort: Effort) -> list[Local]:
        judge = self.judge
        rows = few(judge.samples, effort.rows)
        return local_noise(self._exact, self._rounded, self.places, rows, judge.ends, self._work, literal=judge.literal)

    def alone(self, effort: Effort) -> Iterator[float]:
        return answer_noise(self._exact, self.places, few(self.judge.samples, effort.rows), self.judge.ends, self._work)

    def scores(self) -> tuple[Score, Score]:
        """Of the float model, and of the int8 file."""
        return self.judge.score(self.fp32), self.judge.score(self.int8)

    def try_place(self, place: Place, exact: Score, rounded: Score) -> tuple[float, float]:
        """(points won back with this place float, points lost with this place rounded)."""
        trial = self._work / "trial.onnx"
        self._quantize(self.fp32, trial, self.table, keep=dict.fromkeys(place.takers, "fp32"))
        gain = points(self.judge.score(trial), rounded)
        round_alone(self._exact, (place,), trial)
        return gain, points(exact, self.judge.score(trial))

    def causes(self, observations: Observations, effort: Effort) -> list[tuple[Cause, ...]]:
        now = observe(self.fp32, few(self.judge.samples, effort.range_rows), self.judge.ends)
        return [_causes(place, self._exact, observations, now) for place in self.places]

    def unquantized(self) -> list[Finding]:
        names = in_float(self._exact, self._rounded)
        return [_bare(name, self._exact.nodes[name].output[0]) for name in names]


def _causes(place: Place, exact: Graph, observations: Observations, now: Observations) -> tuple[Cause, ...]:
    found: list[Cause] = []
    for rounding in place.roundings:
        seen, today = observations.tensors.get(rounding.tensor), now.tensors.get(rounding.tensor)
        if seen is not None and today is not None:
            found += causes_of(Evidence(rounding.range, seen, today, rounding.levels))
    for name in place.weights:
        weight = exact.constant(name)
        assert weight is not None
        found += weight_causes(np.moveaxis(weight, weight_axis(exact.consumers(name)[0]), 0))
    return tuple(dict.fromkeys(found))


def _finding(
    place: Place, local: Local, alone: float, tried: tuple[float, float] | None, causes: tuple[Cause, ...]
) -> Finding:
    return Finding(
        node=place.node,
        tensor=place.tensor,
        takers=place.takers,
        sqnr_db=local.simulated,
        artifact_db=local.real,
        answer_db=alone,
        gain=tried[0] if tried else None,
        loss=tried[1] if tried else None,
        causes=causes,
        advice=advice_for(causes),
    )


def _bare(node: str, tensor: str) -> Finding:
    causes: tuple[Cause, ...] = ("missing QDQ",)
    top = CEILING_DB
    return Finding(node, tensor, (node,), top, top, top, None, None, causes, advice_for(causes))
