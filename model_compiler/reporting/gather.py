"""From what the stages give to what the report takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from model_compiler.reporting.curves import risk_curve
from model_compiler.reporting.findings import (
    Bin,
    Diagnosis,
    Equalized,
    Fallback,
    Finding,
    Int4,
    KeptLayer,
    LayerKeptWhole,
    LayerNoise,
    LayerPruned,
    MapTried,
    Pruning,
    Reliability,
    Rule,
    Size,
    StageTook,
    WayTried,
)

if TYPE_CHECKING:
    from model_compiler import calibration, confidence, stages
    from model_compiler.learning import distil, prune, size, ways
    from model_compiler.quantizing import diagnose, equalize, fallback, int4

_BARE = "none"
_MOST_FINDINGS = 10
_CLEAR_POINTS = 0.005


def stages_of(ran: Iterable[stages.Ran]) -> tuple[StageTook, ...]:
    return tuple(StageTook(each.stage, each.took_s, each.reused) for each in ran)


def pruning_of(report: prune.PruneReport) -> Pruning:
    return Pruning(
        method=report.method,
        asked=report.asked,
        reached=report.reached,
        before=_size(report.before),
        after=_size(report.after),
        layers=tuple(LayerPruned(each.name, each.before, each.after, len(each.layers)) for each in report.layers),
        whole=tuple(LayerKeptWhole(each.name, each.channels, each.why) for each in report.whole),
    )


def ways_of(trials: Sequence[distil.Trial], papers: Mapping[ways.Way, str]) -> tuple[WayTried, ...]:
    """`trials` the best first, as choose_way gives them; `papers` is learning.ways.PAPERS."""
    return tuple(
        WayTried(each.way, each.score, papers.get(each.way, ""), winner=at == 0) for at, each in enumerate(trials)
    )


def equalized_of(pairs: Iterable[equalize.Equalized]) -> tuple[Equalized, ...]:
    return tuple(
        Equalized(each.first, each.second, each.channels, each.changed, each.precision_before, each.precision_after)
        for each in pairs
    )


def diagnosis_of(found: diagnose.Diagnosis, order: Sequence[str], keep: Mapping[str, str]) -> Diagnosis:
    """`order`: the tensors as the graph has them, such as an Observations' names; `keep`: what the fallback keeps.

    A place is in float when all that take its tensor are. Findings are the worst ten that cost something or that have
    a cause.
    """
    at = {tensor: index for index, tensor in enumerate(order)}
    places = sorted((each for each in found.findings if each.tensor in at), key=lambda each: at[each.tensor])
    telling = [each for each in found.findings if each.causes or (each.loss or 0.0) > _CLEAR_POINTS]
    return Diagnosis(
        layers=tuple(LayerNoise(each.node, each.tensor, each.sqnr_db, _precision(each, keep)) for each in places),
        findings=tuple(
            Finding(each.node, each.tensor, each.sqnr_db, each.gain, each.loss, each.causes, each.advice)
            for each in telling[:_MOST_FINDINGS]
        ),
        lost_points=100 * (found.float_score - found.int8_score),
        samples=found.samples,
        answer_db=found.answer_db,
    )


def fallback_of(found: fallback.Fallback) -> Fallback:
    return Fallback(
        kept=tuple(
            KeptLayer(each.node, each.precision, each.cost_ms, each.cost_bytes, each.gain) for each in found.costs
        ),
        validation_before=found.int8_score,
        validation_after=found.score,
        holds=found.holds,
        latency_ratio=found.latency_ratio,
        told=found.told,
    )


def int4_of(result: int4.Int4Result, block: int, before: float | None = None, after: float | None = None) -> Int4:
    """`before`, `after`: the metric on validation samples in float and with the weights in int4."""
    return Int4(
        block=block,
        nodes=len(result.nodes),
        share_smaller=result.share_smaller,
        sqnr_db=result.sqnr_db,
        file_share_smaller=result.file_share_smaller,
        left=len(result.left),
        validation_before=before,
        validation_after=after,
    )


def rule_of(artifact: str, fitted: confidence.FittedRule, scores: Sequence[float], differs: Sequence[bool]) -> Rule:
    """`scores` (n,): the confidences of the threshold samples by the chosen maps; `differs` (n,): whether the artifact
    and the cloud answer differently."""
    rule, certified = fitted.rule, fitted.certification
    maps = rule.isotonic
    return Rule(
        artifact=artifact,
        temperature=rule.temperature,
        epsilon=rule.epsilon,
        delta=rule.delta,
        n=rule.n,
        feasible=rule.feasible,
        threshold=rule.threshold,
        escalation=certified.escalation,
        risk=certified.kept_wrong / certified.n if certified.n else 0.0,
        smallest_epsilon=certified.smallest_epsilon,
        stratum=rule.stratum,
        before=_reliability(fitted.reliability[_BARE]),
        after=_reliability(fitted.reliability[fitted.chosen.way]),
        reliability_samples=len(scores),
        maps=_maps(fitted),
        isotonic=tuple(zip(maps.scores, maps.probabilities, strict=True)) if maps is not None else (),
        curve=risk_curve(np.asarray(scores, np.float64), np.asarray(differs, np.bool_)),
        max_escalation=certified.promise.max_escalation if certified.promise.max_escalation < 1 else None,
    )


def _maps(fitted: confidence.FittedRule) -> tuple[MapTried, ...]:
    chosen = fitted.chosen
    briers = {way: losses.brier for way, losses in chosen.held_out.items()}
    return tuple(
        MapTried(way, fitted.reliability[way].ece, briers.get(way), chosen=way == chosen.way) for way in chosen.ways
    )


def _reliability(found: calibration.Reliability) -> Reliability:
    return Reliability(found.ece, tuple(Bin(each.confidence, each.agreement, each.count) for each in found.bins))


def _size(found: size.Size) -> Size:
    return Size(found.weights, found.nonzero, found.multiply_adds, found.bytes, found.compressed_bytes)


def _precision(finding: diagnose.Finding, keep: Mapping[str, str]) -> str:
    kept = [keep.get(taker, "int8") for taker in finding.takers] or [keep.get(finding.node, "int8")]
    return next((each for each in kept if each == "int8"), kept[0])
