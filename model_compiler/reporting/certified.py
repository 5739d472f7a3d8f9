"""The report's section on confidence: each artifact's rule, its calibration, and what its threshold certifies."""

from __future__ import annotations

from contracts.predictions import OVERLAP
from model_compiler.calibration import COLDEST, HOTTEST
from model_compiler.reporting import captions, pictures, words
from model_compiler.reporting.findings import CompileReport, Confidence, MapTried, Reliability, Rule
from model_compiler.reporting.markup import Column, Html, element, facts, join, name, paragraph, table
from model_compiler.reporting.sections import absent, figure, loses, part, section


def confidence(report: CompileReport) -> Html:
    found = report.confidence
    if not isinstance(found, Confidence):
        return section("confidence", "Confidence", absent(found))
    against = (" against the answers of ", name(found.cloud)) if found.cloud else ()
    said = ("Each artifact has its own rule, fitted on its own scores", *against, ": quantizing moves scores.")
    return section(
        "confidence",
        "Confidence",
        paragraph(*said),
        paragraph(_OF_THINGS) if found.things else "",
        _rules(found.rules) if len(found.rules) > 1 else "",
        *(_rule(rule) for rule in found.rules),
    )


_OF_THINGS = (
    "A sample is a thing that the detector finds in a picture; right is one that the cloud's detector finds too, with "
    f"the same label and an intersection over union of {OVERLAP} or more. Of each picture that certifies the threshold "
    "one thing was drawn."
)


def _rules(rules: tuple[Rule, ...]) -> Html:
    columns = (
        Column("Artifact", "name"),
        Column("Temperature", "number"),
        Column("ECE before, %", "number"),
        Column("After, %", "number"),
        Column("ε, %", "number"),
        Column("Escalated, %", "number"),
        Column("Verdict"),
    )
    rows = [
        (
            name(rule.artifact),
            _temperature(rule),
            _ece(rule.before),
            _ece(rule.after),
            words.number(100 * rule.epsilon, 1),
            words.number(100 * rule.escalation, 1),
            _verdict(rule),
        )
        for rule in rules
    ]
    return table(columns, rows)


def _rule(rule: Rule) -> Html:
    promise = f"ε = {words.percent(rule.epsilon)}, δ = {words.percent(rule.delta)}, n = {words.number(rule.n)}"
    return part(
        name(rule.artifact),
        facts(
            (
                ("Verdict", _verdict(rule)),
                ("Threshold", f"λ = {words.number(rule.threshold, 4)}" if rule.feasible else "everything escalates"),
                ("Promise", promise),
                ("Temperature", _temperature(rule)),
                ("Isotonic map", words.counted(len(rule.isotonic), "knot") if rule.isotonic else "none"),
                ("Stratum", name(rule.stratum) if rule.stratum else ""),
            )
        ),
        element("div", _reliability(rule), _risk(rule), class_="pair"),
        _maps(rule.maps) if len(rule.maps) > 1 else "",
        loses(captions.rule_loses(rule)),
    )  # fmt: skip


def _maps(maps: tuple[MapTried, ...]) -> Html:
    columns = (Column("Map"), Column("ECE, %", "number"), Column("Brier score where not fitted", "number"))
    rows = [
        (
            join((each.way, element("small", "chosen"))) if each.chosen else each.way,
            words.number(100 * each.ece, 2),
            words.number(each.brier, 5) if each.brier is not None else "–",
        )
        for each in maps
    ]
    return table(columns, rows, marked=["chosen" if each.chosen else "" for each in maps])


def _reliability(rule: Rule) -> Html:
    if rule.before is None or rule.after is None:
        return Html()
    shows = captions.reliability_shows(rule)
    drawn = pictures.reliability_picture(rule.before, rule.after, told=shows, key=f"reliability-{rule.artifact}")
    return figure(drawn, "Is it as sure as it is right?", shows)


def _risk(rule: Rule) -> Html:
    if not rule.curve:
        return Html()
    shows = captions.risk_shows(rule)
    return figure(
        pictures.risk_picture(rule, told=shows, key=f"risk-{rule.artifact}"), "Risk against escalation", shows
    )


def _verdict(rule: Rule) -> Html:
    if rule.feasible:
        return element("span", "✓ certified", class_="kept")
    least = words.percent(rule.smallest_epsilon, 2)
    return join((element("span", "✗ infeasible", class_="broken"), f", smallest ε {least}"))


def _temperature(rule: Rule) -> Html:
    if any(each.way == "score" for each in rule.maps):
        return join(("none: scores are shares",))
    shown = words.number(rule.temperature, 3)
    bounds = {COLDEST: "the coldest sought", HOTTEST: "the hottest sought"}
    bound = bounds.get(rule.temperature)
    return join((shown, element("small", f"{bound}, not a best fit"))) if bound else join((shown,))


def _ece(of: Reliability | None) -> str:
    return words.number(100 * of.ece, 2) if of is not None else "–"
