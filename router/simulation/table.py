"""A report as a table for people."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from router.simulation.case import Case
from router.simulation.results import ORACLE, Band, Report, Row

_GOOD, _FAIR = 1.5, 3.0
_BAR = 5
_MOST_TIMES = 8.0


def title(case: Case) -> str:
    parts = [
        f"{_count(case.nodes, 'node')} ({case.area})",
        _count(case.routers, "router"),
        f"load {case.load:g}",
        f"{case.services} services",
    ]
    if case.slow_share:
        parts.append(
            f"{case.slow_share:.0%} of the nodes {case.slow_factor:g} times as slow, others every {case.burst_s:g} s"
        )
    if case.mishap != "none":
        parts.append(f"one node {case.mishap}")
    return ", ".join(parts)


def table(report: Report) -> Table:
    """Best first; what the intervals are is said below it."""
    shown = Table(title=title(report.case), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("policy", no_wrap=True)
    for name in ("mean ms", "p50", "p99", "p99.9", "x oracle"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    hedged = any(row.hedged for row in report.rows)
    if hedged:
        shown.add_column("hedged", justify="right")
    for row in report.rows:
        extra = [f"{row.hedged:.1%}"] if hedged else []
        shown.add_row(*_cells(row), *extra, style="bold" if row.policy.startswith("foothill") else "")
    shown.caption = (
        f"Means over {_count(report.seeds, 'seed')}. x oracle: p99 against the oracle's in the same world, and where "
        "95 of 100 bootstrap samples of the seeds lie."
    )
    shown.caption_justify = "left"
    return shown


def _cells(row: Row) -> tuple[str | Text, ...]:
    times = [f"{each.mean:,.0f}" for each in (row.mean_ms, row.p50_ms, row.p99_ms, row.p999_ms)]
    band = row.times_oracle
    style = "green" if band.mean <= _GOOD else "yellow" if band.mean <= _FAIR else "red"
    length = round(_BAR * min(band.mean, _MOST_TIMES) / _MOST_TIMES)
    bar = Text("━" * length + "▸" * (band.mean > _MOST_TIMES), style=style)
    return (row.policy, *times, _ratio(band) if row.policy != ORACLE else Text("1"), bar)


def _ratio(band: Band) -> Text:
    digits = 2 if band.high < 10 else 0
    return Text(f"{band.mean:.{digits}f}").append(f" {band.low:.{digits}f}–{band.high:.{digits}f}", style="dim")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
