"""Planted faults: does the diagnosis find them, and what does the fallback win back at what price?

A network that int8 hardly hurts is trained; one to three of its residual blocks are then made bad for quantization in
ways that leave the float model's answers as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import msgspec
import numpy as np

from benchmarks import cifar10
from benchmarks.nets import deep
from benchmarks.trained import ENDS, trained
from model_compiler.data.samples import Data, Rows, Samples, first
from model_compiler.learning.train import Schedule
from model_compiler.metrics import accuracy, score
from model_compiler.quantizing.causes import Cause
from model_compiler.quantizing.diagnose import Diagnosis, diagnose
from model_compiler.quantizing.equalize import Pair, pairs_of
from model_compiler.quantizing.fallback import Budget, Fallback, fall_back
from model_compiler.quantizing.graph import Graph
from model_compiler.quantizing.int8 import quantize_cpu
from model_compiler.quantizing.observe import BINS, Observations, Seen, observe
from model_compiler.quantizing.prepare import prepare
from model_compiler.quantizing.ranges import table_of
from model_compiler.quantizing.timing import medians_ms
from model_compiler.replay import outputs_of
from model_compiler.yardstick import expected_accuracy

Kind = Literal["loud channel", "loud bias", "stretched range", "cut range"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMED: dict[Kind, set[Cause]] = {
    "loud channel": {"outlier channel"},
    "loud bias": {"outlier channel"},
    "stretched range": {"calibration shift", "dead zero point"},
    "cut range": {"saturating range", "calibration shift"},
}
"""Of the causes found at a planted fault, one at least must be among these."""

FAULTS = (1, 2, 3)
SCHEDULE = Schedule(epochs=2, peak=6e-3, weight_decay=0.02)
_METRIC = accuracy("logits")
_CALIBRATED, _JUDGED, _TESTED = 128, 2000, 4000
_LOST = 2.0
"""Points: with less lost there is nothing to win back that could be told from chance."""

Doubles = np.ndarray


class Case(msgspec.Struct, frozen=True):
    """One planted model. Scores are on test pictures; `lost`, `left`: points of int8 and of the mix below the float."""

    seed: int
    kind: str
    faults: int
    in_top_3: bool
    named: bool
    lost: float
    left: float
    latency_ratio: float
    kept: int
    seconds: float

    @property
    def recovered(self) -> float:
        """A share."""
        return (self.lost - self.left) / self.lost


class Row(msgspec.Struct, frozen=True):
    """Cases of one kind together; the last row holds all. Intervals are of 95 %."""

    fault: str
    cases: int
    found_in_top_3: str
    cause_named: str
    points_lost: str
    recovered: str
    latency_ratio: str
    seconds: str


def measure(cache: Path, seeds: Sequence[int], *, told: Callable[[Case], None] = print) -> list[Case]:
    """Every seed with every kind and number of faults."""
    data, _ = cifar10.load(cache)
    cases = []
    for seed in seeds:
        net = trained("deep", lambda: deep(3), data.train, SCHEDULE, seed=seed, cache=cache / "planted")
        with TemporaryDirectory() as work:
            fp32 = Path(work) / "prepared.onnx"
            prepare(net, fp32)
            for kind, faults in product(KINDS, FAULTS):
                cases.append(_case(fp32, data, kind, faults, seed))
                told(cases[-1])
    return cases


def rows(cases: Sequence[Case]) -> list[Row]:
    by_kind = [[case for case in cases if case.kind == kind] for kind in KINDS]
    return [_row(group[0].kind, group) for group in by_kind if group] + [_row("all", cases)]


def _case(fp32: Path, data: Data, kind: Kind, faults: int, seed: int) -> Case:
    rng = np.random.default_rng([seed, KINDS.index(kind), faults])
    with TemporaryDirectory() as name:
        work = Path(name)
        planted, int8, mix = work / "planted.onnx", work / "int8.onnx", work / "mix.onnx"
        graph = Graph.read(fp32)
        chosen = [pairs_of(graph)[index] for index in rng.permutation(len(pairs_of(graph)))[:faults]]
        observations = _plant(graph, chosen, kind, rng, planted, data)
        ranges = table_of(observations, "minmax")
        quantize_cpu(planted, int8, ranges)
        some = Rows(data.validation, np.arange(_JUDGED))
        by = expected_accuracy(some, outputs_of(planted, some, ENDS), ENDS.output)
        judged = (by.samples, ENDS, by.whole)
        started_s = time.perf_counter()
        diagnosis = diagnose(planted, int8, observations, ranges, *judged, quantize=quantize_cpu)
        lost = 100 * (diagnosis.float_score - diagnosis.int8_score)
        budget = Budget(max(0.5, 0.05 * lost))
        outcome = fall_back(diagnosis, planted, mix, ranges, *judged, budget, quantize=quantize_cpu)
        seconds = time.perf_counter() - started_s
        return _judged(seed, kind, chosen, diagnosis, outcome, seconds, (planted, int8, mix), data.test)


def _judged(
    seed: int,
    kind: Kind,
    chosen: Sequence[Pair],
    diagnosis: Diagnosis,
    outcome: Fallback,
    seconds: float,
    files: tuple[Path, Path, Path],
    test: Samples,
) -> Case:
    part = Rows(test, np.arange(_TESTED))
    exact, plain, mixed = (100 * score(file, part, ENDS, _METRIC) for file in files)
    taken = medians_ms({"int8": files[1], "mix": files[2]}, first(test, 64), ENDS, rounds=200)
    planted = {pair.first.node for pair in chosen}
    found = [each for each in diagnosis.findings if each.node in planted]
    return Case(
        seed=seed,
        kind=kind,
        faults=len(chosen),
        in_top_3=planted <= {each.node for each in diagnosis.findings[:3]},
        named=all(NAMED[kind] & set(each.causes) for each in found),
        lost=exact - plain,
        left=exact - mixed,
        latency_ratio=taken["mix"] / taken["int8"],
        kept=len(outcome.keep),
        seconds=seconds,
    )


def _plant(
    graph: Graph, chosen: Sequence[Pair], kind: Kind, rng: np.random.Generator, out: Path, data: Data
) -> Observations:
    """Writes the faulty model; what its calibration saw."""
    for pair in chosen:
        if kind == "loud channel":
            _loud_channel(graph, pair, int(rng.integers(1, pair.channels)), _between(rng, 100, 1000))
        if kind == "loud bias":
            _loud_bias(graph, pair, _between(rng, 100, 1000))
    out.write_bytes(graph.model.SerializeToString())
    observations = observe(out, Rows(data.ranges, np.arange(_CALIBRATED)), ENDS)
    tensors = dict(observations.tensors)
    for pair in chosen:
        tensor = graph.nodes[pair.second.node].input[0]
        if kind == "stretched range":
            tensors[tensor] = _rescaled(tensors[tensor], _between(rng, 100, 1000))
        if kind == "cut range":
            tensors[tensor] = _rescaled(tensors[tensor], 1 / _between(rng, 10, 100))
    return Observations(tensors, observations.rows)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _loud_channel(graph: Graph, pair: Pair, channel: int, times: float) -> None:
    """A channel so many times larger, which the next layer takes back: ReLU lets the factor through."""
    one, bias, other = (_constant(graph, name) for name in (pair.first.weight, pair.first.bias, pair.second.weight))
    one[channel], bias[channel], other[:, channel] = (
        one[channel] * times,
        bias[channel] * times,
        other[:, channel] / times,
    )
    for name, values in ((pair.first.weight, one), (pair.first.bias, bias), (pair.second.weight, other)):
        graph.set_constant(name, values)


def _loud_bias(graph: Graph, pair: Pair, times: float) -> None:
    """Channel 0, which the next layer ignores, gets a bias so many times as large as the largest one."""
    bias = _constant(graph, pair.first.bias)
    bias[0] = times * np.abs(bias).max()
    graph.set_constant(pair.first.bias, bias)


def _constant(graph: Graph, name: str) -> Doubles:
    values = graph.constant(name)
    assert values is not None
    return values.copy()


def _rescaled(seen: Seen, times: float) -> Seen:
    """What a calibration would have seen with one value so many times too large, or with all so many times smaller."""
    if times < 1:
        return msgspec.structs.replace(
            seen,
            low=seen.low * times,
            high=seen.high * times,
            channel_low=None if seen.channel_low is None else seen.channel_low * times,
            channel_high=None if seen.channel_high is None else seen.channel_high * times,
        )
    centres = (np.arange(BINS) + 0.5) * (2 / BINS) - 1
    histogram = np.histogram(centres / times, BINS, (-1.0, 1.0), weights=seen.histogram)[0].astype(np.int64)
    histogram[-1] += 1
    return msgspec.structs.replace(seen, high=seen.high * times, histogram=histogram)


def _row(name: str, cases: Sequence[Case]) -> Row:
    hurt = [case for case in cases if case.lost >= _LOST]
    return Row(
        fault=name,
        cases=len(cases),
        found_in_top_3=_share([case.in_top_3 for case in cases]),
        cause_named=_share([case.named for case in cases]),
        points_lost=_mean([case.lost for case in hurt]),
        recovered=_mean([100 * case.recovered for case in hurt]) + f" % of {len(hurt)}",
        latency_ratio=_mean([case.latency_ratio for case in hurt]),
        seconds=f"{np.median([case.seconds for case in cases]):.0f}, at most {max(case.seconds for case in cases):.0f}",
    )


def _share(hits: Sequence[bool]) -> str:
    """With the Wilson interval (Wilson 1927)."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return f"{100 * p:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _mean(values: Sequence[float]) -> str:
    """With the percentile interval of the bootstrap over cases."""
    if not values:
        return "none"
    draws = np.random.default_rng(0).choice(np.asarray(values), (10_000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{np.mean(values):.3g} ({low:.3g} to {high:.3g})"
