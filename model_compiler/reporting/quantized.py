"""The report's section on quantizing: what was tried, what int8 hurts, what was done about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from model_compiler.reporting import captions, pictures, words
from model_compiler.reporting.findings import (
    EQUALIZED,
    EXACT_DB,
    Absent,
    BiasCorrection,
    Calibration,
    CompileReport,
    Diagnosis,
    Equalized,
    Fallback,
    Finding,
    Int4,
    KeptLayer,
    NotDone,
    NotMeasured,
    Qat,
    Quantizing,
)
from model_compiler.reporting.markup import Column, Html, element, join, name, paragraph, table
from model_compiler.reporting.sections import absent, figure, folded, loses, part, section

T = TypeVar("T")


def quantizing(report: CompileReport) -> Html:
    found = report.quantizing
    if not isinstance(found, Quantizing):
        return section("quantizing", "Quantizing", absent(found))
    return section(
        "quantizing",
        "Quantizing",
        paragraph(f"The ranges come from {words.counted(found.calibration_rows, 'calibration sample')}."),
        part("Calibration", _calibrations(found)) if found.calibrations else "",
        part("Equalized layers", _unused(found), _equalized(found.equalized)) if found.equalized is not None else "",
        part("Bias correction", _or_absent(found.bias, BiasCorrection, _bias)),
        part("Diagnosis", _or_absent(found.diagnosis, Diagnosis, _diagnosis)),
        part("Layers kept in float", _or_absent(found.fallback, Fallback, _fallback)),
        part("Quantization-aware training", _or_absent(found.qat, Qat, lambda qat: paragraph(captions.qat_tells(qat)))),
        part("int4", _or_absent(found.int4, Int4, _int4)),
    )


def _or_absent(what: T | Absent, kind: type[T], show: Callable[[T], Html]) -> Html:
    if isinstance(what, NotMeasured | NotDone):
        return absent(what)
    return show(what)


def _calibrations(found: Quantizing) -> Html:
    columns = (Column("Ranges by"), Column("With"), Column("Validation, %", "number"), Column("Lost, points", "number"))
    ordered = sorted(found.calibrations, key=lambda each: -each.validation)
    rows = [
        (
            join((each.method, element("small", "chosen"))) if each.chosen else each.method,
            words.listed(each.steps) or "–",
            words.number(100 * each.validation, 2),
            _lost(each, found.float_validation),
        )
        for each in ordered
    ]
    by = f" by {found.scored_by}" if found.scored_by else ""
    said = f"Scored in int8{by} on {words.counted(found.validation_samples, 'validation sample')}"
    said += f"; {words.percent(found.float_validation, 2)} in float." if found.float_validation is not None else "."
    shown = table(columns, rows, marked=["chosen" if each.chosen else "" for each in ordered])
    return join((paragraph(said), shown, loses(captions.calibrations_lose(found))))


def _lost(each: Calibration, whole: float | None) -> str:
    return words.number(100 * (whole - each.validation), 2) if whole is not None else "–"


def _unused(found: Quantizing) -> Html:
    chosen = [each for each in found.calibrations if each.chosen]
    if not chosen or not found.equalized or any(EQUALIZED in each.steps for each in chosen):
        return Html()
    return paragraph("Equalizing was tried and not used: the calibration that was chosen does without.")


def _equalized(pairs: tuple[Equalized, ...]) -> Html:
    if not pairs:
        return paragraph("No two layers have nothing between them but what scales pass through: nothing to equalize.")
    columns = (
        Column("First layer", "name"),
        Column("Second layer", "name"),
        Column("Channels", "number"),
        Column("Largest factor", "number"),
        Column("Range used before, %", "number"),
        Column("After, %", "number"),
    )
    rows = [
        (
            name(each.first),
            name(each.second),
            words.number(each.channels),
            words.times(each.changed),
            words.number(100 * each.precision_before, 1),
            words.number(100 * each.precision_after, 1),
        )
        for each in pairs
    ]
    return folded(f"{words.counted(len(rows), 'pair')} of layers", table(columns, rows), opened=len(rows) <= 8)


def _bias(found: BiasCorrection) -> Html:
    said = f"The bias of {words.counted(found.layers, 'layer')} was moved by the mean error of its output"
    if found.validation_before is not None and found.validation_after is not None:
        said += f"; {_from_to(found.validation_before, found.validation_after)} on validation"
    return paragraph(f"{said}.")


def _diagnosis(found: Diagnosis) -> Html:
    return join(
        (
            paragraph(captions.diagnosis_tells(found)),
            _noise(found) if found.layers else "",
            _findings(found.findings) if found.findings else paragraph(_NO_FINDING[found.sought]),
            loses(captions.noise_loses(found)),
        )
    )


_NO_FINDING = {
    True: "No layer stands out.",
    False: "No causes were sought: int8 keeps the budget, or the recipe does not ask.",
}


def _noise(found: Diagnosis) -> Html:
    shows = captions.noise_shows(found)
    drawn = pictures.noise_picture(found, told=shows, key="noise")
    return element("div", figure(drawn, "Noise of each tensor", shows), class_="single")


def _findings(findings: tuple[Finding, ...]) -> Html:
    columns = (
        Column("", "number"),
        Column("Node", "name"),
        Column("Signal to noise, dB", "number"),
        Column("Won back in float, points", "number"),
        Column("Lost alone in int8, points", "number"),
        Column("Cause"),
        Column("What to do"),
    )
    rows = [
        (
            str(at),
            _place(each),
            _decibel(each.sqnr_db),
            _points(each.gain_points),
            _points(each.loss_points),
            words.listed(each.causes) or "no known one",
            each.advice or "–",
        )
        for at, each in enumerate(findings, 1)
    ]
    return table(columns, rows)


def _place(each: Finding) -> Html:
    """The tensor too, where its name does not say which node writes it."""
    if each.tensor.startswith(each.node):
        return name(each.node)
    return join((name(each.node), element("small", name(each.tensor))))


def _fallback(found: Fallback) -> Html:
    said = f"With them validation goes {_from_to(found.validation_before, found.validation_after)}."
    if not found.kept:
        return join((paragraph(f"No layer stays in float. {found.told}"), loses(captions.fallback_loses(found))))
    return join((paragraph(f"{said} {found.told}"), _kept(found.kept), loses(captions.fallback_loses(found))))


def _kept(kept: tuple[KeptLayer, ...]) -> Html:
    unit, sizes = words.size_column([each.cost_bytes for each in kept])
    digits = words.digits_for([each.cost_ms for each in kept if each.cost_ms is not None], significant=2)
    columns = (
        Column("Node", "name"),
        Column("Kept in"),
        Column("Costs, ms", "number"),
        Column(f"Costs, {unit}", "number"),
        Column("Wins back, points", "number"),
    )
    rows = [
        (
            name(each.node),
            each.precision,
            "–" if each.cost_ms is None else words.signed(each.cost_ms, digits),
            size,
            words.signed(each.gain_points, 2),
        )
        for each, size in zip(kept, sizes, strict=True)
    ]
    return table(columns, rows)


def _int4(found: Int4) -> Html:
    said = (
        f"Weights of {words.counted(found.nodes, 'node')} in blocks of {found.block}: "
        f"{words.percent(found.share_smaller)} smaller, scales counted, at {words.decibel(found.sqnr_db)} of signal to "
        "noise"
    )
    said += f"; the file {words.percent(found.file_share_smaller)}" if found.file_share_smaller is not None else ""
    said += f"; {words.counted(found.left, 'node')} left in float" if found.left else ""
    if found.validation_before is not None and found.validation_after is not None:
        said += f"; {_from_to(found.validation_before, found.validation_after)} on validation"
    return paragraph(f"{said}.")


def _points(value: float | None) -> str:
    return "not tried" if value is None else words.signed(value, 2)


def _from_to(before: float, after: float) -> str:
    return f"from {words.percent(before, 2)} to {words.percent(after, 2)}"


def _decibel(value: float) -> str:
    return "exact" if value >= EXACT_DB else words.number(value, 1)
