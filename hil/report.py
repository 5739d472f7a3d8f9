"""What the acceptance suite found out about a board, for people and for machines."""

from __future__ import annotations

from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

Outcome = Literal["passed", "failed", "skipped"]
Verdict = Literal["partial", "failed"]

_COLOURS: dict[Outcome, str] = {"passed": "green", "failed": "red", "skipped": "yellow"}


class Check(msgspec.Struct, frozen=True):
    """One check of one model, or of the node when `model` is "". `ms`: measured figures, by name."""

    name: str
    outcome: Outcome
    detail: str
    model: str = ""
    ms: dict[str, float] = {}


class Report(msgspec.Struct, frozen=True):
    url: str
    at_s: float
    verdict: Verdict
    checks: tuple[Check, ...]


def verdict_of(checks: tuple[Check, ...]) -> Verdict:
    """`partial` at best: what this suite does not look at (engines, heat, power) it does not accept."""
    return "failed" if any(check.outcome == "failed" for check in checks) else "partial"


def show(report: Report, console: Console) -> None:
    table = Table(title=f"Acceptance of {report.url}")
    for column in ("check", "model", "outcome", "detail"):
        table.add_column(column)
    for check in report.checks:
        colour = _COLOURS[check.outcome]
        table.add_row(check.name, check.model or "-", f"[{colour}]{check.outcome}[/]", check.detail)
    console.print(table)
    console.print(f"Verdict: [bold]{report.verdict}[/]")
