"""The demo's report, for people on a terminal (80 columns, with or without colour) and as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from foothill.demo.figures import Latency, Report

_WIDTH = 80
_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NAMES = {"lease": "ask the router", "retry": "failed tries"}
_STORY_PHASES = ("lease", "retry", "route", "network", "queue", "decode", "infer", "encode", "escalate")


def write_report(report: Report, path: Path) -> None:
    """As indented JSON; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    os.replace(partial, path)


def read_report(path: Path) -> Report:
    """Raises msgspec.DecodeError (a ValueError) for a file of another form."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def print_report(report: Report, console: Console) -> None:
    """At most 80 columns; bars of plain characters where the terminal's encoding has no blocks."""
    blocks = "utf" in console.encoding.lower()
    said = report.bad_rollout.reason.encode(console.encoding, "replace").decode(console.encoding)
    sayable = msgspec.structs.replace(report.bad_rollout, reason=said)
    shown = render(msgspec.structs.replace(report, bad_rollout=sayable), blocks=blocks)
    console.print(shown, width=min(_WIDTH, console.width))


def render(report: Report, *, blocks: bool = True) -> RenderableType:
    return Group(
        _headline(report),
        _section("Time to an answer, ms", _latency_table(report)),
        _section("How they spread", _chart(report, blocks)),
        _section("Where the time goes (ms, over the requests that went through it)", _phase_table(report)),
        _section("Who answered", _served(report, blocks)),
        _section("How good the answers are", _quality(report)),
        _section("What it costs", _cost(report)),
        _section("Rollouts", _rollouts(report)),
    )


def _headline(report: Report) -> RenderableType:
    ours, theirs = report.latency_ms.hybrid, report.latency_ms.all_cloud
    text = Text()
    text.append(f"{report.requests:,} requests", style="bold")
    text.append(f" of {report.clients} clients in {report.countries} countries: ")
    text.append(f"{_percent(report.edge_share)} answered at the edge", style="bold green")
    text.append(f"; the median answer took {_ms(ours.p50)} ms, and {_ms(theirs.p50)} ms with everything in the cloud")
    text.append(
        f" ({_times(theirs.p50, ours.p50)}); the slowest 1 % took over {_ms(ours.p99)} and {_ms(theirs.p99)} ms. "
    )
    text.append(f"{_times(report.bytes_off_site.all_cloud, report.bytes_off_site.hybrid)} fewer bytes went there. ")
    text.append(_failures(report.failed), style="bold green" if report.failed == 0 else "bold red")
    if not report.wan:
        text.append(" Distances were switched off.", style="yellow")
    return Panel(text, title="Foothill demo", border_style="green", box=box.ROUNDED, padding=(0, 1))


def _latency_table(report: Report) -> RenderableType:
    table = _table("", "p50", "p95", "p99", "requests")
    latencies = report.latency_ms
    for name, latency, style in (
        ("hybrid", latencies.hybrid, "bold"),
        ("  leased (client to node)", latencies.leased, ""),
        ("  proxied (other clients)", latencies.proxied, ""),
        ("all in the cloud", latencies.all_cloud, "dim"),
    ):
        table.add_row(name, _ms(latency.p50), _ms(latency.p95), _ms(latency.p99), f"{latency.n:,}", style=style)
    return table


def _phase_table(report: Report) -> RenderableType:
    table = Table(box=None, padding=(0, 1), show_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("hybrid p50", "p95", "p99", "requests", "cloud p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    hybrid, cloud = report.latency_ms.hybrid, report.latency_ms.all_cloud
    for phase in _STORY_PHASES:
        if phase in hybrid.phases or phase in cloud.phases:
            ours = _quantile_cells(hybrid, phase, counted=True)
            theirs = _quantile_cells(cloud, phase, counted=False)
            table.add_row(_NAMES.get(phase, phase), *ours, theirs[0], theirs[2])
    return table


def _chart(report: Report, blocks: bool) -> RenderableType:
    spread = report.distribution_ms
    ours, theirs = _shares(spread.hybrid), _shares(spread.all_cloud)
    longest = max((*ours, *theirs, 1e-9))
    table = Table(box=None, padding=(0, 1), show_edge=False, header_style="dim")
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("hybrid", width=_BAR, no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("all in the cloud", width=_BAR, no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    for at, upto in enumerate(spread.upto_ms):
        last = at == len(spread.upto_ms) - 1
        label = f"over {spread.upto_ms[at - 1]:g}" if last and at else f"to {upto:g}"
        table.add_row(
            label,
            Text(_bar(ours[at] / longest, blocks), style="green"),
            _percent(ours[at]),
            Text(_bar(theirs[at] / longest, blocks), style="blue"),
            _percent(theirs[at]),
        )
    return table


def _served(report: Report, blocks: bool) -> RenderableType:
    table = Table(box=None, padding=(0, 1), show_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(width=_BAR, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for node, count in report.served_by.items():
        share = count / max(1, report.requests)
        table.add_row(node, Text(_bar(share, blocks), style="green"), f"{_percent(share)}  {count:,}")
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.reasons.items())
    facts = Text(f"{report.escalated:,} escalated, {report.degraded:,} degraded. Reasons: {reasons}.", style="dim")
    return Group(table, facts)


def _quality(report: Report) -> RenderableType:
    accuracy = report.accuracy
    table = _table("", "edge alone", "hybrid", "cloud alone")
    table.add_row("accuracy", _percent(accuracy.edge, 2), _percent(accuracy.hybrid, 2), _percent(accuracy.cloud, 2))
    kept = report.disagreement <= report.epsilon
    promise = Text("Answered at the edge and unlike the cloud: ")
    promise.append(f"{_percent(report.disagreement, 2)} of all requests", style="bold green" if kept else "bold red")
    promise.append(
        f"; promised: at most {_percent(report.epsilon, 1)}. (Upper bound at {_percent(1 - report.delta, 0)} "
        f"confidence, requests taken as independent: {_percent(report.disagreement_upper, 2)}. "
        f"Of those kept at the edge alone: {_percent(report.disagreement_at_edge, 2)}.)"
    )
    return Group(table, promise)


def _cost(report: Report) -> RenderableType:
    table = _table("", "hybrid", "all in the cloud", "")
    sent, all_sent = report.bytes_off_site.hybrid, report.bytes_off_site.all_cloud
    table.add_row("bytes to and from the cloud", _bytes(sent), _bytes(all_sent), f"{_times(all_sent, sent)} fewer")
    models = _table("", "student, int8", "teacher", "")
    small, big = report.models.student_int8, report.models.teacher
    models.add_row("model size", _bytes(small.bytes), _bytes(big.bytes), f"{_times(big.bytes, small.bytes)} smaller")
    models.add_row("one inference", f"{small.ms:.3g} ms", f"{big.ms:.3g} ms", f"{_times(big.ms, small.ms)} faster")
    return Group(table, models)


def _rollouts(report: Report) -> RenderableType:
    good, bad = report.rollout, report.bad_rollout
    text = Text()
    text.append("good version: ", style="green")
    text.append(f"active on {good.nodes} nodes, canary first, after {good.seconds:.1f} s\n")
    text.append("bad version:  ", style="red")
    text.append(
        f"reached {_nodes(bad.exposed_nodes)} in stage {bad.stopped_stage}, "
        f"stopped {bad.seconds_to_decision:.1f} s after its start, {_nodes(bad.reverted_nodes)} reverted "
        f"{bad.seconds_to_revert:.1f} s later"
    )
    if bad.reason:
        text.append(f"\n{bad.reason}", style="dim")
    return text


def _section(title: str, content: RenderableType) -> RenderableType:
    return Group(Text(), Text(title, style="bold underline"), Padding(content, (0, 0, 0, 1)))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False, header_style="dim")
    table.add_column(columns[0], no_wrap=True, min_width=30)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _quantile_cells(latency: Latency, phase: str, *, counted: bool) -> list[str]:
    found = latency.phases.get(phase)
    if found is None:
        return ["-"] * (4 if counted else 3)
    cells = [_ms(found.p50), _ms(found.p95), _ms(found.p99)]
    return [*cells, f"{found.n:,}"] if counted else cells


def _shares(counts: tuple[int, ...]) -> list[float]:
    whole = max(1, sum(counts))
    return [count / whole for count in counts]


def _bar(share: float, blocks: bool) -> str:
    """A bar of `share` (0..1) of the full width; anything above nothing shows."""
    if not blocks:
        return "#" * math.ceil(share * _BAR)
    eighths = math.ceil(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _failures(failed: int) -> str:
    return "Not one request failed." if failed == 0 else f"{failed:,} requests failed."


def _percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:.{digits}f} %"


def _ms(milliseconds: float) -> str:
    return (
        f"{milliseconds:.0f}"
        if milliseconds >= 99.95
        else f"{milliseconds:.1f}"
        if milliseconds >= 9.995
        else f"{milliseconds:.2f}"
    )


def _times(larger: float, smaller: float) -> str:
    return f"{larger / smaller:.1f}x" if smaller > 0 else "no end of times"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _bytes(count: float) -> str:
    for unit, size in _UNITS.items():
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


_UNITS: Mapping[str, int] = {"GB": 10**9, "MB": 10**6, "kB": 10**3}
