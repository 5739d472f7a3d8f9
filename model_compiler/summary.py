"""What was compiled, in short: for programs as JSON, for people as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from contracts.manifest import Manifest, Measured, Measurements
from model_compiler.pack import Packed, read_measurements
from model_compiler.pipeline import report_of
from model_compiler.reporting.budget import Outcome
from model_compiler.reporting.report import HTML_FILE, JSON_FILE, read_report


class Summary(msgspec.Struct, frozen=True):
    """One bundle. `broken`: what the budget and the promise ask for and no artifact keeps; empty: all is kept."""

    bundle: str
    digest: str
    directory: str
    measurements: Measurements
    report: str = ""
    warnings: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def summary_of(packed: Packed) -> Summary:
    """Of a bundle just compiled; a report may lie beside it."""
    bare = Summary(packed.manifest.reference, packed.digest, str(packed.directory), read_measurements(packed))
    place = report_of(packed.directory)
    if not (place / JSON_FILE).exists():
        return bare
    report = read_report(place / JSON_FILE)
    broken = (*_broken(report.outcomes), *_unkept(packed.manifest))
    page = str(place / HTML_FILE)
    return msgspec.structs.replace(bare, report=page, warnings=report.findings.head.warnings, broken=broken)


def print_table(summaries: Sequence[Summary]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("bundle", "artifact", box=None, pad_edge=False, collapse_padding=True)
    for title in ("score", "agrees", "escalates", "bytes", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for summary in summaries:
        for name, measured in summary.measurements.artifacts.items():
            table.add_row(summary.bundle, name, *_cells(measured))
    console = Console()
    console.print(table)
    found = [each.measurements for each in summaries]
    scored = [each for each in found if any(one.accuracy is not None for one in each.artifacts.values())]
    for metric in dict.fromkeys(measurements.metric for measurements in scored):
        console.print(f"score: {metric}", style="dim", soft_wrap=True)
    for summary in summaries:
        console.print(f"digest of {summary.bundle}: {summary.digest}", style="dim", soft_wrap=True)
        if summary.report:
            console.print(f"report: {summary.report}", style="dim", soft_wrap=True)


def _broken(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The broken promises of the artifact that nodes prefer, where no artifact that was measured keeps them all."""
    by_artifact = {name: tuple(each) for name, each in groupby(outcomes, key=lambda each: each.artifact)}
    measured = [each for each in by_artifact.values() if all(one.verdict != "not measured" for one in each)]
    if measured and not any(all(one.verdict == "kept" for one in each) for each in measured):
        for one in measured[0]:
            if one.verdict == "broken":
                words = f"{one.promise} {one.measured:,.4g} where {one.promised:,.4g} was promised"
                yield f"no artifact keeps the budget; {one.artifact}: {words}."


def _unkept(manifest: Manifest) -> Iterator[str]:
    first = manifest.artifacts[0]
    if first.confidence is not None and not first.confidence.feasible:
        yield f"{first.file}: the promise is not certified, so that every request escalates; the warnings say why."


def _cells(measured: Measured) -> Iterator[str]:
    yield "" if measured.accuracy is None else f"{measured.accuracy:.1%} of {measured.samples}"
    for share in (measured.agreement, measured.escalation):
        yield "" if share is None else f"{share:.1%}"
    yield f"{measured.bytes:,}"
    yield "" if measured.latency_ms is None else f"{measured.latency_ms:.3f}"
