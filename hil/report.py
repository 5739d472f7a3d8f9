"""What the suite found out about a board, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.acceptance import Acceptance, Check, Curve, Outcome, Verdict

_COLOURS: dict[Outcome, str] = {"passed": "green", "failed": "red", "skipped": "yellow"}
_VERDICTS: dict[Verdict, str] = {"passed": "bold green", "failed": "bold red", "partial": "bold yellow"}


def line_of(check: Check) -> Text:
    """One finished check."""
    name = f"{check.name} {check.model}".strip()
    return Text.assemble((f"{check.outcome:<8}", _COLOURS[check.outcome]), (f"{name:<24} ", "bold"), check.detail)


def show(report: Acceptance, console: Console) -> None:
    """What the lines of the checks have not told: the curves, and what all of it comes to."""
    for curve in report.curves:
        console.print(_curve(curve))
    console.print(verdict_line(report))


def verdict_line(report: Acceptance) -> Text:
    counts = {outcome: sum(check.outcome == outcome for check in report.checks) for outcome in _COLOURS}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    why = " It was interrupted." if report.interrupted else ""
    return Text.assemble("Verdict: ", (report.verdict, _VERDICTS[report.verdict]), f" ({told}).{why}")


def _curve(curve: Curve) -> Table:
    table = Table(title=Text(f"{curve.model}: latency over load"))
    for column in ("loop", "at once", "sent/s", "answers/s", "p50 ms", "p95 ms", "p99 ms", "refused", "failed"):
        table.add_column(column, justify="right")
    for point in curve.points:
        closed = point.loop == "closed"
        table.add_row(
            point.loop,
            str(point.concurrency) if closed else "",
            "" if closed else f"{point.rate:.1f}",
            f"{point.throughput:.1f}",
            *(f"{ms:.2f}" for ms in (point.p50_ms, point.p95_ms, point.p99_ms)),
            str(point.refused),
            str(point.failed),
        )
    return table
