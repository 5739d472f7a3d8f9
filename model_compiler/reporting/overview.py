"""The report's first sections: what came out, whether the budget holds, and all that was tried."""

from __future__ import annotations

from collections.abc import Sequence

from model_compiler.bootstrap import Interval
from model_compiler.reporting import captions, pictures, words
from model_compiler.reporting.budget import Outcome, Promise
from model_compiler.reporting.findings import (
    Absent,
    Budget,
    Candidate,
    Candidates,
    CompileReport,
    Head,
    Latency,
    Score,
)
from model_compiler.reporting.fronts import Point, by_bytes, by_latency, everyone
from model_compiler.reporting.markup import Column, Html, element, facts, items, join, name, paragraph, table
from model_compiler.reporting.sections import absent, figure, loses, section, stands

_PROMISED: dict[Promise, str] = {
    "drop": "at most {} lost",
    "speed-up": "at least {} as fast",
    "latency": "at most {}",
    "bytes": "at most {}",
}


def top(report: CompileReport, outcomes: Sequence[Outcome]) -> Html:
    """The name, the one sentence, the verdict, and what identifies the compilation."""
    head = report.head
    verdict = captions.verdict(outcomes)
    broken = any(each.verdict == "broken" and (each.chosen or not _any_chosen(outcomes)) for each in outcomes)
    kind = "broken" if broken else "open" if not any(each.verdict == "kept" for each in outcomes) else "kept"
    return element(
        "header",
        paragraph("Foothill · compile report", class_="eyebrow"),
        element("h1", *_breakable(head.bundle)),
        paragraph(captions.headline(report), class_="lead") if captions.headline(report) else "",
        paragraph(verdict, class_=f"verdict {kind}") if verdict else "",
        _warnings(head),
        facts(
            (
                ("Task", head.task),
                ("Compiled", head.measured_at),
                ("Machine", head.machine),
                ("Digest", name(head.digest) if head.digest else ""),
            )
        ),
    )


def budget(report: CompileReport, outcomes: Sequence[Outcome]) -> Html:
    if not isinstance(report.budget, Budget):
        return section("budget", "Budget", absent(report.budget))
    if not outcomes:
        return section(
            "budget", "Budget", paragraph("Nothing was promised, or no artifact came out to hold it against.")
        )
    promises = tuple(dict.fromkeys((each.promise, each.promised) for each in outcomes))
    titles = (_PROMISED[promise].format(_amount(promise, promised)) for promise, promised in promises)
    columns = (Column("Artifact", "name"), *(Column(title, "number") for title in titles))
    cells = {(each.artifact, each.promise): _cell(each) for each in outcomes}
    chosen = {each.artifact: each.chosen for each in outcomes}
    shown = sorted(chosen, key=lambda artifact: not chosen[artifact])
    rows = [(name(artifact), *(cells[artifact, promise] for promise, _ in promises)) for artifact in shown]
    told = (
        "Lost points and speed are against the reference below. “Not certain” is a verdict that the 95 % interval of "
        "its measurement reaches across."
    )
    return section(
        "budget",
        "Budget",
        table(columns, rows, marked=["chosen" if chosen[artifact] else "" for artifact in shown]),
        paragraph(told, class_="note"),
    )


def candidates(report: CompileReport) -> Html:
    found = report.candidates
    if not isinstance(found, Candidates):
        return section("candidates", "What was tried", absent(found))
    compared = f"; the reference is the {found.role}" if isinstance(found.reference, Candidate) else ""
    about = f"{_upper(found.metric)} is measured on {found.measured_on}{compared}."
    return section(
        "candidates",
        "What was tried",
        paragraph(about),
        "" if isinstance(found.reference, Candidate) else absent(found.reference, f"The {found.role}"),
        _fronts(report, found),
        _table(found),
        loses(captions.candidates_lose(found)),
    )


def _fronts(report: CompileReport, found: Candidates) -> Html:
    promised = report.budget if isinstance(report.budget, Budget) else Budget()
    floor = _floor(found, promised)
    drawn = []
    sized, timed = by_bytes(found), by_latency(found)
    if len(sized) > 1:
        unit, factor = words.unit_of(min(point.cost for _, point in sized))
        limit = promised.max_bytes / factor if promised.max_bytes else None
        scaled = [(each, Point(point.name, point.cost / factor, point.worth)) for each, point in sized]
        drawn.append(_front(found, scaled, pictures.Cost("bytes", f"size, {unit}", limit), floor))
    if len(timed) > 1:
        cost = pictures.Cost("latency", "one inference, ms", promised.max_latency_ms)
        drawn.append(_front(found, timed, cost, floor))
    return element("div", *drawn, class_="pair") if drawn else Html()


def _front(
    found: Candidates, placed: Sequence[tuple[Candidate, Point]], cost: pictures.Cost, floor: float | None
) -> Html:
    shown = captions.front_shows(found, [point for _, point in placed])
    spots = [_spot(point, candidate, found) for candidate, point in placed]
    drawn = pictures.front_picture(spots, metric=found.metric, cost=cost, floor=floor, told=shown)
    return figure(drawn, f"{_upper(found.metric)} against {cost.key}", shown)


def _spot(point: Point, candidate: Candidate, found: Candidates) -> pictures.Spot:
    reference = found.reference
    against = candidate.score.against_reference if isinstance(candidate.score, Score) else None
    low = high = point.worth
    if against is not None and isinstance(reference, Candidate) and isinstance(reference.score, Score):
        low, high = reference.score.value + against.low, reference.score.value + against.high
    return pictures.Spot(point, low, high, reference=candidate is reference, chosen=candidate.chosen)


def _floor(found: Candidates, promised: Budget) -> float | None:
    """What the metric may fall to."""
    reference = found.reference
    if promised.max_drop_points is None or not isinstance(reference, Candidate):
        return None
    return reference.score.value - promised.max_drop_points / 100 if isinstance(reference.score, Score) else None


def _table(found: Candidates) -> Html:
    shown = everyone(found)
    unit, sizes = words.size_column([each.bytes for each in shown])
    timed = [each.latency.median_ms for each in shown if isinstance(each.latency, Latency)]
    digits = words.digits_for(timed)
    columns = (
        Column("Candidate"),
        Column("Artifact", "name"),
        Column("Precision"),
        Column(f"Size, {unit}", "number"),
        Column("Latency, ms", "number"),
        Column(f"{_upper(found.metric)}, %", "number"),
        Column("Against the reference, points", "number"),
        Column("Samples", "number"),
    )
    rows = [
        (
            join((each.name, element("small", _noted(each, found)))) if _noted(each, found) else each.name,
            name(each.file) if each.file else "–",
            each.precision,
            size,
            _latency(each.latency, digits),
            _score(each.score),
            _against(each.score),
            words.number(each.score.samples) if isinstance(each.score, Score) else "–",
        )
        for each, size in zip(shown, sizes, strict=True)
    ]
    marked = ["reference" if each is found.reference else "chosen" if each.chosen else "" for each in shown]
    return join((table(columns, rows, marked=marked), _why_not(shown)))


def _noted(each: Candidate, found: Candidates) -> str:
    what = found.role if each is found.reference and each.name != found.role else "chosen" if each.chosen else ""
    return "; ".join(part for part in (what, each.note) if part)


def _latency(latency: Latency | Absent, digits: int) -> str:
    if not isinstance(latency, Latency):
        return stands(latency)
    low, high = words.number(latency.low_ms, digits), words.number(latency.high_ms, digits)
    return join((words.number(latency.median_ms, digits), element("small", f"{low} to {high}")))


def _score(score: Score | Absent) -> str:
    return words.number(100 * score.value, 2) if isinstance(score, Score) else stands(score)


def _against(score: Score | Absent) -> str:
    if not isinstance(score, Score) or score.against_reference is None:
        return "–"
    against: Interval = score.against_reference
    return join((words.signed(100 * against.mean, 2), element("small", words.interval(against, 100))))


def _why_not(shown: Sequence[Candidate]) -> Html:
    """Every reason why a cell of the table is empty, once."""
    reasons: dict[str, list[str]] = {}
    for each in shown:
        for what, part in (("latency", each.latency), ("score", each.score)):
            if isinstance(part, Absent):
                reasons.setdefault(f"{what} {stands(part)}: {part.why}", []).append(each.name)
    told = [f"{words.listed(names)}: {reason}" for reason, names in reasons.items()]
    return items(told, "note") if told else Html()


def _warnings(head: Head) -> Html:
    if not head.warnings:
        return Html()
    return element("aside", element("h2", "Warnings"), items(head.warnings), class_="warnings")


def _cell(outcome: Outcome) -> Html:
    if outcome.measured is None:
        return element("span", "not measured", class_="not-measured")
    mark = {"kept": "✓", "broken": "✗"}[outcome.verdict]
    said = f"{mark} {outcome.verdict}{'' if outcome.certain else ', not certain'}"
    return join((_amount(outcome.promise, outcome.measured), element("small", said, class_=outcome.verdict)))


def _amount(promise: Promise, value: float) -> str:
    if promise == "drop":
        return f"{words.number(value, 2)}\N{NO-BREAK SPACE}points"
    return {"speed-up": words.times, "latency": words.ms, "bytes": words.size}[promise](value)


def _any_chosen(outcomes: Sequence[Outcome]) -> bool:
    return any(each.chosen for each in outcomes)


def _breakable(reference: str) -> tuple[str, ...]:
    """A line may end before the version."""
    bundle, at, version = reference.partition("@")
    return (bundle, Html("<wbr>"), element("span", at + version, class_="version")) if at else (reference,)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
