"""What the figures say, in sentences: the headline, what a picture shows, and where the compilation loses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from model_compiler.bootstrap import Interval
from model_compiler.reporting import words
from model_compiler.reporting.budget import Outcome, Promise, Verdict
from model_compiler.reporting.findings import (
    EXACT_DB,
    Calibration,
    Candidate,
    Candidates,
    CompileReport,
    Diagnosis,
    Fallback,
    Latency,
    Learning,
    Qat,
    Quantizing,
    Reliability,
    Rule,
    Score,
)
from model_compiler.reporting.fronts import Point, everyone, front

_CLEAR_POINTS = 0.005
_FEW_ROWS = 5
_PROMISES: dict[Promise, str] = {"drop": "lost points", "speed-up": "speed-up", "latency": "latency", "bytes": "bytes"}


def headline(report: CompileReport) -> str:
    """What came out, in one sentence; empty where nothing was chosen."""
    candidates = report.candidates
    if not isinstance(candidates, Candidates):
        return ""
    chosen = next((each for each in candidates.tried if each.chosen), None)
    if chosen is None:
        return ""
    reference = candidates.reference
    if not isinstance(reference, Candidate):
        return f"{_shown(chosen)} has {words.size(chosen.bytes)}{_own_figures(chosen, candidates)}."
    said = [_bytes_against(chosen, reference)]
    said += _speed_against(chosen, reference)
    against = _difference(chosen, reference)
    said += [_points_against(against, candidates)] if against is not None else []
    return f"Against the {candidates.role}, {_shown(chosen)} {words.listed(said)}."


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Of the chosen artifacts, or of all where none is."""
    about = [each for each in outcomes if each.chosen] or list(outcomes)
    if not about:
        return ""
    by_verdict = {verdict: [each for each in about if each.verdict == verdict] for verdict in get_args(Verdict)}
    kept, broken, unmeasured = by_verdict["kept"], by_verdict["broken"], by_verdict["not measured"]
    unsure = [each for each in kept if not each.certain]
    keepers = words.listed(list(dict.fromkeys(each.artifact for each in kept)))
    said = [f"{_share_of(kept, about)} kept by {keepers}"] if kept and not broken else []
    said += [f"{_share_of(broken, about)} broken ({_told(broken)})"] if broken else []
    said += [f"not certain: {_told(unsure)}"] if unsure and not broken else []
    said += [f"not measured: {_told(unmeasured)}"] if unmeasured else []
    written = "; ".join(said)
    return f"{written[:1].upper()}{written[1:]}."


def front_shows(candidates: Candidates, points: Sequence[Point]) -> str:
    """Under the picture of the front."""
    best = [each.name for each in front(points)]
    return (
        f"Up and left is better. The steps lead through what nothing else beats in both: {', '.join(best)}. "
        f"The diamond is the {candidates.role}; whiskers are 95 % intervals of the difference to it; what is dashed is "
        "the budget."
    )


def candidates_lose(candidates: Candidates) -> list[str]:
    """Where what was chosen is worse than something else that was tried."""
    chosen = [each for each in candidates.tried if each.chosen]
    said: list[str] = []
    for each in chosen:
        said += _loses_points(each, candidates)
        said += [_faster(other, each, candidates) for other in everyone(candidates) if _faster_and_as_good(other, each)]
        said += [
            f"{other.name} has fewer bytes than {each.name} ({words.size(other.bytes)} against "
            f"{words.size(each.bytes)}) and is no worse in {candidates.metric}."
            for other in candidates.tried
            if _smaller_and_as_good(other, each)
        ]
    return said


def ways_show(learning: Learning) -> str:
    rows = words.counted(learning.validation_samples, "validation sample")
    said = f"Each was tried shortly and scored on {rows}; the best was trained in full."
    gain = _gain_over_control(learning)
    return said + (f" It is {words.points(100 * gain)} above the control." if gain is not None and gain > 0 else "")


def learning_loses(learning: Learning) -> list[str]:
    """Against the control, which learns from labels alone."""
    gain, n = _gain_over_control(learning), learning.validation_samples
    if gain is None or len(learning.ways) == 1:
        return []
    if gain <= 0:
        return [f"In the trials no way beat learning from the labels alone{_close_behind(learning)}."]
    if gain * n < _FEW_ROWS:
        rows = words.counted(round(gain * n), "validation sample")
        return [f"The best way is {rows} above learning from the labels alone, which may be chance."]
    return []


def calibrations_lose(quantizing: Quantizing) -> list[str]:
    """What int8 costs, and what the choice among the calibrations is worth."""
    if not quantizing.calibrations:
        return []
    best, worst = _extremes(quantizing.calibrations)
    said = []
    if quantizing.float_validation is not None:
        lost = 100 * (quantizing.float_validation - best.validation)
        said += [f"The best of them is {words.points(lost)} under the model in float."] if lost > _CLEAR_POINTS else []
    between = best.validation - worst.validation
    if len(quantizing.calibrations) > 1 and quantizing.validation_samples * between < _FEW_ROWS:
        rows = round(quantizing.validation_samples * between)
        told = f"{words.counted(rows, 'validation sample')} apart" if rows else "alike"
        said.append(f"Best and worst are {told}: which of them is chosen hardly matters here.")
    return said


def noise_shows(diagnosis: Diagnosis) -> str:
    quietest = min(diagnosis.layers, key=lambda layer: layer.sqnr_db)
    kept = sum(layer.precision not in ("int8", "int4") for layer in diagnosis.layers)
    exact = sum(layer.sqnr_db >= EXACT_DB for layer in diagnosis.layers)
    return (
        f"One stem a tensor, {words.number(len(diagnosis.layers))} of them: itself against itself rounded to int8. "
        f"Higher is better; the lowest is {words.decibel(quietest.sqnr_db)}. "
        + ("Numbers point to the findings in the table. " if diagnosis.findings else "")
        + (f"Hollow dots stay in float ({kept}). " if kept else "")
        + (f"{words.number(exact)} without any noise drawn at the top." if exact else "")
    ).strip()


def diagnosis_tells(diagnosis: Diagnosis) -> str:
    said = []
    if diagnosis.lost_points is not None:
        word = "loses" if diagnosis.lost_points >= 0 else "gains"
        on = f" on {words.counted(diagnosis.samples, 'sample')}" if diagnosis.samples else ""
        said.append(f"int8 {word} {words.points(diagnosis.lost_points)} against fp32{on}.")
    if diagnosis.answer_db is not None:
        said.append(f"At the answers, signal to noise is {words.decibel(diagnosis.answer_db)}.")
    return " ".join(said)


def noise_loses(diagnosis: Diagnosis) -> list[str]:
    """Noise that costs nothing, and cost that no single layer explains."""
    said = []
    gains = [each.gain_points for each in diagnosis.findings if each.gain_points is not None]
    free = sum(gain <= _CLEAR_POINTS for gain in gains)
    if free:
        costs = "wins" if free == 1 else "win"
        said.append(f"Of {words.counted(len(gains), 'finding')}, {free} {costs} nothing back alone.")
    won = max(gains, default=0.0)
    if gains and diagnosis.lost_points is not None and diagnosis.lost_points > max(2 * won, 0.1):
        said.append(
            f"int8 loses {words.points(diagnosis.lost_points)}, and no layer alone wins back more than "
            f"{words.points(won)}: the loss is spread over many."
        )
    return said


def fallback_loses(fallback: Fallback) -> list[str]:
    """What the kept layers cost together, and whether it was enough."""
    size = words.size(sum(each.cost_bytes for each in fallback.kept))
    slower = fallback.latency_ratio - 1 if fallback.latency_ratio is not None else None
    said = []
    if fallback.kept and slower is None:
        said.append(f"Together they cost {size}.")
    elif fallback.kept and slower is not None:
        word = "slower" if slower >= 0 else "faster"
        said.append(f"Together they cost {size}, and the file is {words.percent(abs(slower))} {word} than in int8.")
    return said + ([] if fallback.holds else ["The budget is still broken."])


def qat_tells(qat: Qat) -> str:
    before, after = words.percent(qat.validation_before, 2), words.percent(qat.validation_after, 2)
    kept = "kept" if qat.kept else "not kept"
    return f"Fine-tuned for int8 in {words.counted(qat.epochs, 'epoch')}: from {before} to {after}; {kept}. {qat.note}"


def reliability_shows(rule: Rule) -> str:
    return (
        "A dot for each bin of confidence, its area the share of samples there. On the diagonal, confidence says how "
        "often the answer is right, that is, the cloud's; orange is how far it is off, and the expected calibration "
        "error (ECE) its mean over the samples: "
        f"{words.counted(rule.reliability_samples, 'sample')} that no map was fitted on."
    )


def risk_shows(rule: Rule) -> str:
    if not rule.feasible:
        return (
            f"No threshold keeps the joint risk at {words.percent(rule.epsilon)} with confidence "
            f"{words.percent(1 - rule.delta, 0)} on {words.number(rule.n)} samples{_within(rule)}: everything "
            f"escalates. The smallest ε that they certify is {words.percent(rule.smallest_epsilon, 2)}."
        )
    return (
        f"Each point is a threshold. Certified is the one that escalates {words.percent(rule.escalation)} of the "
        f"{words.number(rule.n)} samples: the joint risk is at most {words.percent(rule.epsilon)} with confidence "
        f"{words.percent(1 - rule.delta, 0)}, and {words.percent(rule.risk, 2)} as counted."
    )


def rule_loses(rule: Rule) -> list[str]:
    """What certainty costs in escalations, and calibration that made things worse."""
    said = []
    enough = [point.escalation for point in rule.curve if point.risk <= rule.epsilon]
    if rule.feasible and enough and rule.escalation > min(enough):
        gap = 100 * (rule.escalation - min(enough))
        said.append(f"Being sure costs {words.points(gap, 1)} of escalation over what these samples alone would allow.")
    if rule.before is not None and rule.after is not None and rule.after.ece > rule.before.ece:
        said.append(f"Calibration made the error larger: {_eces(rule.before, rule.after)}.")
    return said


def _gain_over_control(learning: Learning) -> float | None:
    """As a share; None where there is no winner, or no control beside it."""
    winner = next((each for each in learning.ways if each.winner), None)
    control = next((each for each in learning.ways if each.way == learning.control), None)
    return winner.validation - control.validation if winner is not None and control is not None else None


def _close_behind(learning: Learning) -> str:
    """The best of the other ways, where only a few samples part it from the control."""
    control = max(each.validation for each in learning.ways if each.way == learning.control)
    best = max((each for each in learning.ways if each.way != learning.control), key=lambda each: each.validation)
    rows = round((control - best.validation) * learning.validation_samples)
    if rows >= _FEW_ROWS or not learning.validation_samples:
        return ""
    under = f"is {words.counted(rows, 'validation sample')} under it" if rows else "does as well"
    return f"; {best.way} {under}, which may be chance"


def _shown(candidate: Candidate) -> str:
    return candidate.file or candidate.name


def _own_figures(chosen: Candidate, candidates: Candidates) -> str:
    score, latency = chosen.score, chosen.latency
    said = f", takes {words.ms(latency.median_ms)}" if isinstance(latency, Latency) else ""
    return said + (f", {candidates.metric} {words.percent(score.value, 2)}" if isinstance(score, Score) else "")


def _bytes_against(chosen: Candidate, reference: Candidate) -> str:
    share = 1 - chosen.bytes / reference.bytes if reference.bytes else 0.0
    both = f"({words.size(chosen.bytes)}, not {words.size(reference.bytes)})"
    return f"has {words.percent(abs(share))} {'fewer' if share >= 0 else 'more'} bytes {both}"


def _speed_against(chosen: Candidate, reference: Candidate) -> list[str]:
    own, other = chosen.latency, reference.latency
    if not isinstance(own, Latency) or not isinstance(other, Latency):
        return []
    faster = other.median_ms >= own.median_ms
    ratio = other.median_ms / own.median_ms if faster else own.median_ms / other.median_ms
    how = f"is {words.times(ratio)} as fast" if faster else f"takes {words.times(ratio)} as long"
    return [f"{how} ({words.ms(own.median_ms)}, not {words.ms(other.median_ms)})"]


def _points_against(against: Interval, candidates: Candidates) -> str:
    change = 100 * against.mean
    if abs(change) < _CLEAR_POINTS:
        return f"loses nothing in {candidates.metric} ({_interval_of(against)})"
    word = "gains" if change > 0 else "loses"
    return f"{word} {words.points(change)} of {candidates.metric} ({_interval_of(against)})"


def _interval_of(against: Interval) -> str:
    if against.low == against.high == against.mean:
        return "no interval"
    return f"95 % interval {words.interval(against, 100)}"


def _difference(candidate: Candidate, reference: Candidate) -> Interval | None:
    own, other = candidate.score, reference.score
    if not isinstance(own, Score) or not isinstance(other, Score):
        return None
    change = own.value - other.value
    return own.against_reference or Interval(change, change, change)


def _loses_points(chosen: Candidate, candidates: Candidates) -> list[str]:
    reference = candidates.reference
    against = _difference(chosen, reference) if isinstance(reference, Candidate) else None
    if against is None or against.mean >= 0 or against.low == against.high:
        return []
    if against.high < 0:
        least, most = words.number(-100 * against.high, 2), words.points(100 * against.low)
        return [f"{_shown(chosen)} is under the {candidates.role} by {least} to {most} (95 % interval)."]
    lost = words.points(100 * against.mean)
    return [f"{_shown(chosen)} is {lost} under the {candidates.role}; these samples cannot tell that from no loss."]


def _as_good(other: Candidate, one: Candidate) -> bool:
    return isinstance(other.score, Score) and isinstance(one.score, Score) and other.score.value >= one.score.value


def _faster_and_as_good(other: Candidate, one: Candidate) -> bool:
    """With intervals that do not touch: a machine that drifts makes no loser."""
    if not isinstance(other.latency, Latency) or not isinstance(one.latency, Latency):
        return False
    return other.latency.high_ms < one.latency.low_ms and _as_good(other, one)


def _smaller_and_as_good(other: Candidate, one: Candidate) -> bool:
    """Of those that run where `one` runs: what was timed here, or what was not."""
    alike = isinstance(other.latency, Latency) == isinstance(one.latency, Latency)
    return alike and other.bytes < one.bytes and _as_good(other, one)


def _faster(other: Candidate, one: Candidate, candidates: Candidates) -> str:
    said = (
        f"{other.name} is faster than {one.name} ({_ms(other)} against {_ms(one)}) and no worse in {candidates.metric}"
    )
    return said + (f": {one.name} gains bytes only." if one.bytes < other.bytes else ".")


def _ms(candidate: Candidate) -> str:
    return words.ms(candidate.latency.median_ms) if isinstance(candidate.latency, Latency) else "not timed"


def _share_of(some: Sequence[Outcome], about: Sequence[Outcome]) -> str:
    if len(some) < len(about):
        return f"{len(some)} of {words.counted(len(about), 'promise')}"
    return f"all {words.counted(len(about), 'promise')}" if len(about) > 1 else "the promise is"


def _told(outcomes: Iterable[Outcome]) -> str:
    return ", ".join(f"{_PROMISES[each.promise]} of {each.artifact}" for each in outcomes)


def _extremes(tried: Sequence[Calibration]) -> tuple[Calibration, Calibration]:
    ordered = sorted(tried, key=lambda each: each.validation)
    return ordered[-1], ordered[0]


def _within(rule: Rule) -> str:
    return f" within {words.percent(rule.max_escalation)} of escalation" if rule.max_escalation is not None else ""


def _eces(before: Reliability, after: Reliability) -> str:
    return f"{words.percent(before.ece, 2)} before, {words.percent(after.ece, 2)} after"
