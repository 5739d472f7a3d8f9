"""The report as a page: whole in one file, readable on a screen, in the dark, and in print."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from contracts.acceptance import Acceptance, BundleSeen, Check, Curve, Point, decode
from hil.chart import chart
from hil.http_port import plain
from runtime.links.bundles.acceptance_reports import read

_SENTENCES = {
    "passed": "Passed: every check of the full suite.",
    "partial": "Partial: nothing failed, and not everything was checked.",
    "failed": "Failed.",
}


def page_of(data: bytes) -> str:
    """`data` is a report file. The page shows it and proves nothing: the JSON file is what is signed."""
    file = read(data)
    report = decode(file.report)
    signed = f"key {file.signature.key_id}" if file.signature is not None else "nobody"
    style = Path(__file__).with_name("style.css").read_text()
    title = f"Acceptance of {report.board or report.url}"
    body = "".join(
        (_head(report, title, signed), _checks(report.checks), *map(_curve, report.curves), _machine(report))
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def _head(report: Acceptance, title: str, signed: str) -> str:
    interrupted = " It was interrupted." if report.interrupted else ""
    facts = (
        ("Node", f"{report.node} at {report.url}"),
        ("Target", report.target or "not asked: there was no fleet manager"),
        ("When", f"{_moment(report.at_s)}, for {report.seconds:.0f} s"),
        ("Suite", report.suite),
        ("Signed by", signed + (f", public key {report.signed_by}" if report.signed_by else "")),
        *((f"Serves {seen.model}", _seen(seen)) for seen in report.bundles),
    )
    return (
        f"<h1>{_text(title)}</h1>"
        f'<p class="verdict {report.verdict}">{_text(_SENTENCES[report.verdict] + interrupted)}</p>{_facts(facts)}'
    )


def _checks(checks: Sequence[Check]) -> str:
    rows = (
        f"<tr><td>{_text(check.name)}</td><td>{_text(check.model or '–')}</td>"
        f'<td class="outcome {check.outcome}">{check.outcome}</td><td class="detail">{_text(check.detail)}</td></tr>'
        for check in checks
    )
    head = "<tr><th>check</th><th>model</th><th>outcome</th><th>measured, and the limit</th></tr>"
    return f"<h2>Checks</h2>{_table(head, rows)}"


def _curve(curve: Curve) -> str:
    head = "".join(f'<th class="number">{name}</th>' for name in _COLUMNS)
    rows = (f"<tr>{''.join(_cells(point))}</tr>" for point in curve.points)
    told = (
        f"At most {curve.most_per_s:.1f} answers a second, reached with {curve.saturated_at} requests at once. Lines: "
        "closed loop, with the requests at once. Rings: open loop, latency counted from when a request was due."
    )
    figure = f"<figure>{chart(curve)}<figcaption>{told}</figcaption></figure>"
    return f"<h2>{_text(curve.model)}: latency over load</h2>{figure}{_table(f'<tr>{head}</tr>', rows)}"


_COLUMNS = (
    "loop",
    "at once",
    "sent/s",
    "answers/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "queue ms",
    "infer ms",
    "refused",
    "failed",
    "client",
)


def _cells(point: Point) -> Iterable[str]:
    closed = point.loop == "closed"
    shown = (
        point.loop,
        str(point.concurrency) if closed else "–",
        "–" if closed else f"{point.rate:.1f}",
        f"{point.throughput:.1f}",
        *(f"{ms:.2f}" for ms in (point.p50_ms, point.p95_ms, point.p99_ms)),
        *(f"{point.phases_ms[phase]:.2f}" if phase in point.phases_ms else "–" for phase in ("queue", "infer")),
        str(point.refused),
        str(point.failed),
        f"{point.client_share:.0%}",
    )
    return (f'<td class="number">{cell}</td>' for cell in shown)


def _machine(report: Acceptance) -> str:
    if report.fingerprint is None:
        return ""
    told = msgspec.to_builtins(report.fingerprint)
    return f"<h2>Machine</h2>{_facts((name, str(value)) for name, value in told.items())}"


def _seen(seen: BundleSeen) -> str:
    return f"{seen.bundle}, {seen.artifact} on {seen.provider or 'a provider not told'}, {seen.digest}"


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>' for name, value in pairs)}</dl>"


def _table(head: str, rows: Iterable[str]) -> str:
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _moment(at_s: float) -> str:
    try:
        return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return f"{at_s:g} s of unix time"


def _text(text: str) -> str:
    return html.escape(plain(text, 2000), quote=True)
