"""The report of a compilation: one page for people, one JSON file for programs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from contracts.decoding import UNREADABLE
from model_compiler.errors import CompileError
from model_compiler.reporting.budget import Outcome, judge
from model_compiler.reporting.findings import Candidate, Candidates, CompileReport
from model_compiler.reporting.fronts import Point, by_bytes, by_latency, front
from model_compiler.reporting.page import render

FORM = 1
"""Raised when report.json changes so that older readers would misread it."""
JSON_FILE, HTML_FILE = "report.json", "report.html"


class Report(msgspec.Struct, frozen=True):
    """report.json: the findings as they were handed in, and what follows from them.

    `outcomes`: each promise for each artifact. `best_by_bytes`, `best_by_latency`: the names of the candidates on the
    two Pareto fronts, by rising cost.
    """

    findings: CompileReport
    outcomes: tuple[Outcome, ...]
    best_by_bytes: tuple[str, ...]
    best_by_latency: tuple[str, ...]
    form: int = FORM


def write_report(findings: CompileReport, directory: Path) -> Path:
    """Writes report.json and report.html into `directory`, and gives the page's path.

    Equal findings give equal bytes. Raises CompileError for a number that is not finite, for want of matplotlib, and
    when the files cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(report_of(findings), order="sorted"), indent=2) + b"\n"
    page = render(findings).encode()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / JSON_FILE, data)
        _replace(directory / HTML_FILE, page)
    except OSError as error:
        raise CompileError(f"{directory} takes no report: {error}. Free space, or name another directory.") from error
    return directory / HTML_FILE


def read_report(path: Path) -> Report:
    """A report.json. Raises CompileError when it is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, *UNREADABLE) as error:
        raise CompileError(f"{path} is no compile report: {error}. Compile the bundle again.") from error


def report_of(findings: CompileReport) -> Report:
    """Raises CompileError for a number that is not finite: JSON has none, and a page would show nonsense."""
    for where, value in _numbers(msgspec.to_builtins(findings), "findings"):
        if not math.isfinite(value):
            raise CompileError(f"{where} is {value}. Say NotMeasured, or for a ratio without noise EXACT_DB.")
    tried = findings.candidates if isinstance(findings.candidates, Candidates) else None
    return Report(
        findings,
        judge(findings),
        _best(by_bytes(tried)) if tried else (),
        _best(by_latency(tried)) if tried else (),
    )


def _best(placed: Sequence[tuple[Candidate, Point]]) -> tuple[str, ...]:
    return tuple(each.name for each in front([point for _, point in placed]))


def _numbers(value: Any, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from _numbers(inner, f"{where}[{at}]")


def _replace(path: Path, data: bytes) -> None:
    """The file appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)
