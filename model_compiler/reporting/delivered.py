"""The report's last sections: what was checked, what each target takes, how long it took and on what."""

from __future__ import annotations

from model_compiler.reporting import words
from model_compiler.reporting.findings import CompileReport, Export, Head, Lint, StageTook, Targets
from model_compiler.reporting.markup import Column, Html, bar, element, facts, items, join, name, paragraph, table
from model_compiler.reporting.sections import absent, part, section


def export(report: CompileReport) -> Html:
    found = report.export
    if not isinstance(found, Export):
        return section("export", "Export", absent(found))
    batch = "any batch size" if found.dynamic_batch else "a fixed batch size"
    slim = f"; onnxslim took out {words.counted(found.slimmed, 'node')}" if found.slimmed is not None else ""
    return section("export", "Export", paragraph(f"ONNX of opset {found.opset}, for {batch}{slim}."), _parity(found))


def _parity(found: Export) -> Html:
    if not found.parity:
        return Html()
    columns = (
        Column("Artifact", "name"),
        Column("Rows", "number"),
        Column("Largest difference", "number"),
        Column("Top label alike, %", "number"),
    )
    rows = [
        (
            name(each.artifact),
            words.number(each.rows),
            _small(each.largest_difference),
            words.number(100 * each.agreement, 2) if each.agreement is not None else "–",
        )
        for each in found.parity
    ]
    told = paragraph("Every artifact beside the network that it came from, on the same real inputs.")
    return join((told, table(columns, rows)))


def _small(value: float) -> str:
    return words.number(value, words.digits_for([value], significant=2, most=7))


def targets(report: CompileReport) -> Html:
    found = report.targets
    if not isinstance(found, Targets):
        return section("targets", "Targets", absent(found))
    columns = (Column("Target"), Column("Takes", "name"), Column("Runs it with"), Column("Not measured"))
    rows = [
        (each.target, name(each.artifact) if each.artifact else "nothing fits", each.runtime, each.not_measured or "–")
        for each in found.taken
    ]
    return section(
        "targets",
        "Targets",
        table(columns, rows),
        part("TensorRT's rules", *(_lint(each) for each in found.lint)) if found.lint else "",
        part("Not measured here", items(found.not_measured)) if found.not_measured else "",
    )


def _lint(found: Lint) -> Html:
    if not found.problems:
        passed = element("span", "✓ ", class_="kept")
        return paragraph(passed, name(found.artifact), " has no zero point, no int32 bias and no uint8: it passes.")
    broken = element("span", "✗ ", class_="broken")
    return join((paragraph(broken, name(found.artifact), " breaks them:"), items(found.problems)))


def stages(head: Head) -> Html:
    """How long each took; those of an earlier compilation count as they took then."""
    if not head.stages:
        return Html()
    longest = max(each.took_s for each in head.stages) or 1.0
    columns = (Column("Stage"), Column("Took", "number"), Column(""))
    rows = [(_stage(each), words.seconds(each.took_s), bar(each.took_s / longest)) for each in head.stages]
    ran = sum(each.took_s for each in head.stages if not each.reused)
    reused = sum(each.took_s for each in head.stages if each.reused)
    said = f"{words.seconds(ran)} of work now"
    said += f", {words.seconds(reused)} saved by stages whose inputs had not changed." if reused else "."
    marked = ["dim" if each.reused else "" for each in head.stages]
    return section("stages", "Stages", paragraph(said), table(columns, rows, marked=marked))


def _stage(each: StageTook) -> str:
    return join((each.stage, element("small", "kept from before"))) if each.reused else each.stage


def measured(head: Head) -> Html:
    """How, and with what."""
    if not head.how and not head.tools:
        return Html()
    return section(
        "how",
        "How it was measured",
        paragraph(head.how) if head.how else "",
        facts(sorted(head.tools.items())),
    )
