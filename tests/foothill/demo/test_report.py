"""The report as a person reads it."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from foothill.demo.figures import Report, build_report
from foothill.demo.report import print_report, read_report, write_report
from tests.foothill.demo.made_up import STORY, outcomes

REPORT = build_report(outcomes("hybrid"), outcomes("edge"), outcomes("cloud"), STORY)


def printed(report: Report, *, width: int = 80, encoding: str = "utf-8", colour: bool = False) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=file, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    print_report(report, console)
    return raw.getvalue().decode(encoding)


def unboxed(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_it_fits_eighty_columns_and_needs_no_colour() -> None:
    text = printed(REPORT)
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "…" not in text


def test_a_wide_terminal_changes_nothing() -> None:
    assert max(cell_len(line) for line in printed(REPORT, width=200).splitlines()) <= 80


def test_it_says_what_matters_first() -> None:
    head = "".join(printed(REPORT).splitlines()[:6])
    for part in (
        "2,000 requests",
        "120 clients",
        "41 countries",
        "88.5 % answered at the edge",
        "Not one request failed",
    ):
        assert part in head


def test_the_promise_stands_beside_what_was_measured() -> None:
    text = unboxed(printed(REPORT))
    assert "0.65 % of all requests; promised: at most 2.0 %" in text
    assert "95 % confidence, requests taken as independent: 1.03 %" in text


def test_failures_are_not_hidden() -> None:
    assert "3 requests failed" in unboxed(printed(msgspec.structs.replace(REPORT, failed=3)))
    red = printed(msgspec.structs.replace(REPORT, failed=3, disagreement=0.05), colour=True)
    assert "\x1b[1;31m3 requests failed" in red


def test_switched_off_distances_are_said() -> None:
    assert "Distances were switched off" in unboxed(printed(msgspec.structs.replace(REPORT, wan=False)))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_blocks_gets_plain_characters(encoding: str) -> None:
    bad = msgspec.structs.replace(REPORT.bad_rollout, reason="5 % → 18 %")
    text = printed(msgspec.structs.replace(REPORT, bad_rollout=bad), encoding=encoding)
    assert "####" in text
    assert "5 % ? 18 %" in text
    assert "█" not in text


def test_a_run_without_one_answer_is_printed_too() -> None:
    empty = build_report([], [], [], STORY)
    assert "0 requests" in printed(empty)


def test_the_file_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    write_report(REPORT, path)
    assert read_report(path) == REPORT
    assert list(path.parent.iterdir()) == [path]
