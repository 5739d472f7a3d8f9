"""The report as one page that needs nothing else: no script, no picture, no letter from elsewhere."""

from __future__ import annotations

from pathlib import Path

from model_compiler.reporting import certified, delivered, learned, overview, quantized
from model_compiler.reporting.budget import judge
from model_compiler.reporting.findings import CompileReport
from model_compiler.reporting.markup import Html, element, escaped, join, paragraph

_STYLE = Path(__file__).with_name("style.css")
_NO_ICON = "data:,"
# Nothing may be loaded or run, even if markup slipped through.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_CONTENTS = (
    ("budget", "Budget"),
    ("candidates", "What was tried"),
    ("learning", "Learning"),
    ("quantizing", "Quantizing"),
    ("confidence", "Confidence"),
    ("export", "Export"),
    ("targets", "Targets"),
    ("stages", "Stages"),
)


def render(report: CompileReport) -> str:
    """The whole document, the same for the same findings."""
    outcomes = judge(report)
    body = (
        overview.top(report, outcomes),
        _contents(report),
        overview.budget(report, outcomes),
        overview.candidates(report),
        learned.learning(report),
        quantized.quantizing(report),
        certified.confidence(report),
        delivered.export(report),
        delivered.targets(report),
        delivered.stages(report.head),
        delivered.measured(report.head),
        element("footer", paragraph("The same as JSON: ", element("a", "report.json", href="report.json"), ".")),
    )
    return f"<!doctype html>\n{element('html', _head(report), element('body', element('main', *body)), lang='en')}\n"


def _head(report: CompileReport) -> Html:
    return element(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escaped(_POLICY)}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        element("title", f"{report.head.bundle}: compile report"),
        Html(f'<link rel="icon" href="{_NO_ICON}">'),
        element("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )


def _contents(report: CompileReport) -> Html:
    shown = [each for each in _CONTENTS if each[0] != "stages" or report.head.stages]
    links = join((element("a", title, href=f"#{key}") for key, title in shown), " ")
    return element("nav", links, aria_label="Contents")
