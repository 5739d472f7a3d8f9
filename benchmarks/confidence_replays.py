"""Does the threshold hold, and what does it cost: calibrations replayed on populations whose true risk is known.

`python -m benchmarks.confidence_replays [--logits FILE.npz]... [--json FILE]`

A population is a finite set of real samples, each with what the edge artifact and the cloud bundle make of it, so the
true joint risk and the true escalation of every threshold are counted, not estimated. One replay draws samples
independently (with replacement) from it, fits a rule on them as the compiler does, and looks up what that rule
truly does. The samples for the maps are drawn from another set. The oracle escalates as little as a threshold on the
same confidences may that knows the population.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import typer

from benchmarks.report import table
from contracts.risk import binomial
from model_compiler import pack
from model_compiler.calibration import Confidences, choose_maps, confidence_of
from model_compiler.confidence import FittedRule, Promise, fit_rule
from model_compiler.data.samples import Floats, Numbers, to_samples
from model_compiler.digits import camera, recipe, splits
from model_compiler.digits.splits import Digits
from model_compiler.replay import Ends, outputs_of

N, N_FIT, REPLAYS = 5000, 1000, 500
TARGET = 1.15
_SEED = 20
_FRAMES, _FIT_FRAMES = 60, 20
_FIT_SHARE = 0.2
_MOST_SAMPLES = 1 << 18


class Pairs(msgspec.Struct, frozen=True):
    """The artifact's logits (n, classes) float32 and the cloud's labels (n,) int64 for the same samples."""

    logits: Floats
    answers: Numbers

    def __len__(self) -> int:
        return len(self.answers)

    def take(self, rows: Numbers) -> Pairs:
        return Pairs(self.logits[rows], self.answers[rows])

    @property
    def differs(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.logits.argmax(axis=1) != self.answers)


class Population(msgspec.Struct, frozen=True):
    """`whole` is what rules are certified on, `fit` a disjoint set that their maps are fitted on."""

    name: str
    how: str
    whole: Pairs
    fit: Pairs


class Replayed(msgspec.Struct, frozen=True):
    """One promise on one population. Shares of 1; `broken` is of replays, with its exact 95 % interval.

    `ratio_*`: escalation over the oracle's under the same confidences: mean of all replays, its 95 % interval (normal),
    median. `least_ratio`: the mean that the most powerful exact test reaches with `n` samples; no rule that keeps the
    promise has a smaller one. `n_needed`: the samples with which that would be 1.15. None where the oracle escalates
    nothing.
    """

    population: str
    pairs: int
    differs: float
    epsilon: float
    delta: float
    n: int
    replays: int
    broken: float
    broken_low: float
    broken_high: float
    oracle: float
    escalation: float
    ratio_mean: float | None
    ratio_low: float | None
    ratio_high: float | None
    ratio_median: float | None
    least_ratio: float | None
    n_needed: int | None
    infeasible: int

    @property
    def holds(self) -> bool:
        """Nothing in the replays speaks against a share of broken promises of at most delta."""
        return self.broken_low <= self.delta


class Calibrated(msgspec.Struct, frozen=True):
    """Means over the replays: calibration error and Brier score before the maps and after each; how often which won."""

    population: str
    ece_before: float
    ece_temperature: float
    ece_isotonic: float
    brier_before: float
    brier_temperature: float
    brier_isotonic: float
    isotonic_chosen: float


class Results(msgspec.Struct, frozen=True):
    replayed: list[Replayed]
    calibrated: list[Calibrated]
    how: list[str]


class _Truth(msgspec.Struct, frozen=True):
    """What one rule, and the oracle beside it, truly do on the population."""

    risk: float
    escalation: float
    oracle: float
    feasible: bool


def digits_population(directory: Path, *, frames: int = _FRAMES) -> Population:
    """The digits recipe compiled into `directory` (or found there), its edge int8 artifact against its cloud bundle.

    `frames` camera frames of each digit of the parts threshold and test, which nothing of either model has seen; the
    maps are fitted on frames of the part fit.
    """
    if not (directory / recipe.EDGE).exists():
        recipe.compile_digits(directory)
    edge, cloud = (pack.read(directory / name).first_artifact for name in (recipe.EDGE, recipe.CLOUD))
    parts = splits.split(splits.load())
    unseen = splits.load().take(np.concatenate([parts[part].rows for part in ("threshold", "test")]))
    return Population(
        name="digits",
        how=f"{frames} camera frames of each of {len(unseen)} digits unseen by both models; int8 edge, fp32 cloud",
        whole=_frames(unseen, edge, cloud, frames=frames, seed=31),
        fit=_frames(parts["fit"], edge, cloud, frames=_FIT_FRAMES, seed=32),
    )


def logits_population(name: str, how: str, edge: Floats, cloud: Floats) -> Population:
    """Of logits (n, classes) of both models for the same unseen samples; a fifth of them, by lot, fits the maps."""
    order = np.random.default_rng(_SEED).permutation(len(edge))
    pairs, first = Pairs(edge, cloud.argmax(axis=1)), int(_FIT_SHARE * len(edge))
    return Population(name, how, whole=pairs.take(order[first:]), fit=pairs.take(order[:first]))


def measure(
    population: Population,
    promises: list[Promise],
    *,
    n: int = N,
    n_fit: int = N_FIT,
    replays: int = REPLAYS,
    seed: int = _SEED,
) -> Results:
    """Every promise on the same draws."""
    rng, fitted = np.random.default_rng(seed), []
    for _ in range(replays):
        fit = population.fit.take(rng.integers(0, len(population.fit), n_fit))
        certify = population.whole.take(rng.integers(0, len(population.whole), n))
        fitted.append([_fit(fit, certify, promise) for promise in promises])
    truths = [_truths(population.whole, told) for told in fitted]
    rows = [_replayed(population, promise, n, [each[at] for each in truths]) for at, promise in enumerate(promises)]
    return Results(rows, [_calibrated(population, [each[0] for each in fitted])], [population.how])


def least_escalation(confidence: Confidences, differs: npt.NDArray[np.bool_], promise: Promise, n: int) -> float:
    """The least share that a rule with this promise can escalate on average, on these confidences, from `n` samples.

    For each λ such a rule has a threshold of at most λ with no more probability than the most powerful test at level
    delta rejects "the risk at λ exceeds epsilon" (Neyman and Pearson 1933): the binomial one, with chance deciding at
    the count next to its critical one. So a sample of confidence s escalates at least so often as that does not reject.
    """
    order = np.argsort(-confidence, kind="stable")
    ties = np.searchsorted(-confidence[order], -confidence[order], side="right") - 1
    counts, samples = np.unique(np.cumsum(differs[order])[ties], return_counts=True)
    return 1.0 - float(samples @ _powers(counts / len(differs), promise, n)) / len(differs)


def oracle_escalation(confidence: Confidences, differs: npt.NDArray[np.bool_], epsilon: float) -> float:
    """The smallest share that a threshold escalates whose true joint risk is at most `epsilon`."""
    wrong = np.sort(confidence[differs])[::-1]
    allowed = int(epsilon * len(differs) + 1e-9)
    return 0.0 if len(wrong) <= allowed else float(np.mean(confidence <= wrong[allowed]))


def samples_needed(confidence: Confidences, differs: npt.NDArray[np.bool_], promise: Promise) -> int | None:
    """With how many samples `least_escalation` comes within 1.15 of the oracle's, to 2 %; None beyond 262,144."""
    wanted = TARGET * oracle_escalation(confidence, differs, promise.epsilon)
    low, high = 50, _MOST_SAMPLES
    if least_escalation(confidence, differs, promise, high) > wanted:
        return None
    while high > 1.02 * low:
        middle = int((low * high) ** 0.5)
        enough = least_escalation(confidence, differs, promise, middle) <= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


def _powers(risks: Confidences, promise: Promise, n: int) -> Confidences:
    """How often the most powerful test rejects "more than epsilon" where the truth is each of `risks`."""
    critical = binomial.critical_count(n, promise.epsilon, promise.delta)
    level, next_level = (binomial.cdf(count, n, promise.epsilon) for count in (critical, critical + 1))
    chance = (promise.delta - level) / (next_level - level)
    powers = (risks < promise.epsilon).astype(np.float64)
    # Beyond twelve standard deviations that is the answer.
    near = np.flatnonzero(np.abs(risks - promise.epsilon) < 12 * np.sqrt(np.maximum(risks, promise.epsilon) / n))
    for at in near.tolist():
        below, beside = (binomial.cdf(count, n, float(risks[at])) for count in (critical, critical + 1))
        powers[at] = below + chance * (beside - below)
    return powers


def _fit(fit: Pairs, certify: Pairs, promise: Promise) -> FittedRule:
    return fit_rule(fit.logits, fit.answers, certify.logits, certify.answers, promise, stratum="", cloud_digest="")


def _truths(whole: Pairs, fitted: list[FittedRule]) -> list[_Truth]:
    """Of rules that share their maps."""
    confidence, differs = confidence_of(whole.logits, fitted[0].rule), whole.differs
    truths = []
    for rule in (each.rule for each in fitted):
        kept, oracle = confidence >= rule.threshold, oracle_escalation(confidence, differs, rule.epsilon)
        truths.append(_Truth(float(np.mean(kept & differs)), 1.0 - float(np.mean(kept)), oracle, rule.feasible))
    return truths


def _replayed(population: Population, promise: Promise, n: int, truths: list[_Truth]) -> Replayed:
    broken, replays = sum(each.risk > promise.epsilon for each in truths), len(truths)
    ratios = [each.escalation / each.oracle for each in truths if each.oracle > 0]
    mean = statistics.fmean(ratios) if ratios else None
    margin = 1.96 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("inf")
    whole, differs = population.whole, population.whole.differs
    confidence = confidence_of(whole.logits, choose_maps(population.fit.logits, population.fit.answers).maps)
    least, oracle = (
        least_escalation(confidence, differs, promise, n),
        oracle_escalation(confidence, differs, promise.epsilon),
    )
    return Replayed(
        population=population.name,
        pairs=len(whole),
        differs=float(differs.mean()),
        epsilon=promise.epsilon,
        delta=promise.delta,
        n=n,
        replays=replays,
        broken=broken / replays,
        broken_low=binomial.lower_bound(broken, replays, 0.025),
        broken_high=binomial.upper_bound(broken, replays, 0.025),
        oracle=statistics.fmean(each.oracle for each in truths),
        escalation=statistics.fmean(each.escalation for each in truths),
        ratio_mean=mean,
        ratio_low=None if mean is None else mean - margin,
        ratio_high=None if mean is None else mean + margin,
        ratio_median=statistics.median(ratios) if ratios else None,
        least_ratio=least / oracle if oracle > 0 else None,
        n_needed=samples_needed(confidence, differs, promise) if oracle > 0 else None,
        infeasible=sum(not each.feasible for each in truths),
    )


def _calibrated(population: Population, fitted: list[FittedRule]) -> Calibrated:
    def mean(step: str, figure: str) -> float:
        told = [each.reliability[step] for each in fitted]
        return float(np.mean([each.ece if figure == "ece" else each.losses.brier for each in told]))

    return Calibrated(
        population=population.name,
        ece_before=mean("none", "ece"),
        ece_temperature=mean("temperature", "ece"),
        ece_isotonic=mean("isotonic", "ece"),
        brier_before=mean("none", "brier"),
        brier_temperature=mean("temperature", "brier"),
        brier_isotonic=mean("isotonic", "brier"),
        isotonic_chosen=float(np.mean([each.chosen.way == "isotonic" for each in fitted])),
    )


def main(
    logits: Annotated[
        list[Path] | None, typer.Option(help="An .npz with `edge` and `cloud` logits (n, classes) of unseen samples.")
    ] = None,
    bundles: Annotated[Path | None, typer.Option(help="Where the digits bundles are, or are to be compiled.")] = None,
    replays: Annotated[int, typer.Option(help="Calibrations for each promise.", min=1)] = REPLAYS,
    n: Annotated[int, typer.Option(help="Samples that certify each.", min=1)] = N,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Replays calibrations on the digits, and on the logits of any other pair of models."""
    promises = [Promise(epsilon=epsilon) for epsilon in (0.01, Promise().epsilon, 0.05)]
    with tempfile.TemporaryDirectory(prefix="foothill-digits-") as directory:
        populations = [digits_population(bundles or Path(directory))]
    for path in logits or []:
        found = np.load(path)
        populations.append(logits_population(path.stem, str(path.name), found["edge"], found["cloud"]))
    told = [measure(population, promises, n=n, replays=replays) for population in populations]
    results = Results(
        [row for each in told for row in each.replayed],
        [row for each in told for row in each.calibrated],
        [line for each in told for line in each.how],
    )
    print(table(results.replayed), table(results.calibrated), *results.how, sep="\n\n")
    if json is not None:
        json.write_bytes(msgspec.json.encode(results))


def _frames(digits: Digits, edge: Path, cloud: Path, *, frames: int, seed: int) -> Pairs:
    """`frames` camera frames of every digit, through both artifacts."""
    rng, ends = np.random.default_rng(seed), Ends("image", ("logits",))
    logits, answers = [], []
    for _ in range(frames):
        inputs = to_samples(camera.shoot(digits.pictures, rng), digits.labels, recipe.PREPROCESS)
        logits.append(outputs_of(edge, inputs, ends))
        answers.append(outputs_of(cloud, inputs, ends).argmax(axis=1))
    return Pairs(np.concatenate(logits), np.concatenate(answers))


if __name__ == "__main__":
    typer.run(main)
