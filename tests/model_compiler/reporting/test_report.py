"""The report as files: whole, safe, the same every time, and true when there was little to measure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from model_compiler.errors import CompileError
from model_compiler.reporting.findings import (
    Calibration,
    CompileReport,
    Confidence,
    Diagnosis,
    Head,
    LayerNoise,
    NotDone,
    Quantizing,
)
from model_compiler.reporting.page import render
from model_compiler.reporting.report import read_report, report_of, write_report
from tests.model_compiler.reporting.example import bare, full, rule, tried_qat
from tests.model_compiler.reporting.test_markup import HOSTILE, Read

SECTIONS = ("budget", "candidates", "learning", "quantizing", "confidence", "export", "targets")
# Every element that the page is made of; a string that became markup would add to them.
_HTML = (
    "html head meta title link style body main header nav section footer div aside p h1 h2 h3 a b code small span i "
    "wbr dl dt dd ul li table caption thead tbody tr th td details summary figure figcaption"
)
_SVG = "svg g defs path use text clippath rect tspan"
TAGS = {*_HTML.split(), *_SVG.split()}


def text_of(page: Path) -> str:
    return " ".join(Read(page.read_text()).text.replace("\N{NO-BREAK SPACE}", " ").split())


def hostile(value: Any) -> Any:
    """`value` with every text in it replaced."""
    if isinstance(value, dict):
        return {key: inner if key == "state" else hostile(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hostile(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


def test_the_json_reads_back_as_what_was_found(full_page: Path) -> None:
    report = read_report(full_page.with_name("report.json"))
    assert report.findings == full()
    assert report.outcomes
    assert report.best_by_bytes[-1] == report.best_by_latency[-1] == "teacher"


def test_the_json_is_sorted_and_for_people_too(full_page: Path) -> None:
    text = full_page.with_name("report.json").read_text()
    assert text.startswith('{\n  "best_by_bytes": [')

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert [key for key, _ in pairs] == sorted(key for key, _ in pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=check)


def test_what_is_not_a_report_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"{}", b'{"findings": 1}', b"\xff"):
        (tmp_path / "report.json").write_bytes(content)
        with pytest.raises(CompileError, match="is no compile report"):
            read_report(tmp_path / "report.json")
    with pytest.raises(CompileError, match="is no compile report"):
        read_report(tmp_path / "nothing.json")


def test_the_page_shows_what_was_measured(full_page: Path) -> None:
    text = text_of(full_page)
    for said in (
        "pictures-edge@1.4.0",
        "has 92.9 % fewer bytes (349 kB, not 4.91 MB), is 6.8× as fast",
        "All 4 promises kept by cpu.u8s8.onnx",
        "its accuracy is what that reaches",
        "chosen; equalized, bias corrected, 2 layers in float",
        "Zhao et al. 2022",
        "1.74 points above the control",
        "outlier channel",
        "Together they cost 17.4 kB, and the file is 11.1 % slower than in int8.",
        "The fallback kept the budget, so it was not needed.",
        "✗ infeasible, smallest ε 2.18 %",
        "no Jetson here",
        "it passes",
        "31 min 52 s",
    ):
        assert said in text, said
    assert full_page.read_text().count("<svg") == 2 + 1 + 2 * 2


def test_a_page_with_little_to_say_says_why(bare_page: Path) -> None:
    text = text_of(bare_page)
    for said in (
        "There are no calibration samples.",
        "Not done. The model came as a finished ONNX file.",
        "The teacher: not measured. The recipe names no teacher.",
        "as it came and half: score not measured: There are no labels.",
        "half: latency not measured: This machine has no GPU.",
        "Not measured. The compilation did not say why.",
    ):
        assert said in text, said


def test_every_section_is_there_whatever_was_measured(full_page: Path, bare_page: Path) -> None:
    for page in (full_page, bare_page):
        content = page.read_text()
        for section in SECTIONS:
            assert f'<section id="{section}">' in content
            assert f'href="#{section}"' in content


@pytest.mark.parametrize("parts", [SECTIONS[::2], SECTIONS[1::2]], ids=", ".join)
def test_parts_may_be_missing(parts: tuple[str, ...]) -> None:
    missing = {part: NotDone(f"No {part} here.") for part in parts}
    text = Read(render(msgspec.structs.replace(full(), **missing))).text
    assert all(f"Not done. No {part} here." in text for part in parts)


def test_a_compilation_of_which_nothing_is_known_has_a_report(tmp_path: Path) -> None:
    assert "a@1" in text_of(write_report(CompileReport(Head("a@1")), tmp_path))


def test_the_page_asks_for_nothing_and_runs_nothing(full_page: Path) -> None:
    content = full_page.read_text()
    assert "http" not in content.replace("http-equiv", "")
    assert not re.search(r"url\((?!#)", content)
    assert "@import" not in content
    read = Read(content)
    assert set(read.tags) <= TAGS
    asked = [value for key, value in read.attributes if key in ("src", "href", "xlink:href")]
    assert {value for value in asked if not str(value).startswith("#")} == {"data:,", "report.json"}


def test_names_from_outside_never_become_markup() -> None:
    findings = msgspec.convert(hostile(msgspec.to_builtins(full())), CompileReport)
    read = Read(render(findings))
    assert set(read.tags) <= TAGS
    assert read.tags.count("style") == 1
    assert not [key for key, _ in read.attributes if key.startswith("on")]
    assert read.text.count("<script>alert(1)</script>") > 100


def test_what_was_tried_for_int8_shows() -> None:
    quantizing = full().quantizing
    assert isinstance(quantizing, Quantizing)
    findings = msgspec.structs.replace(full(), quantizing=msgspec.structs.replace(quantizing, qat=tried_qat()))
    text = Read(render(findings)).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Fine-tuned for int8 in 4 epochs: from 92.52 % to 92.79 %; kept." in text


def test_equalizing_that_was_not_chosen_is_told_as_tried() -> None:
    quantizing = full().quantizing
    assert isinstance(quantizing, Quantizing)
    plain = (Calibration("minmax", 0.93, chosen=True), Calibration("minmax", 0.92, ("equalized",)))
    without = msgspec.structs.replace(quantizing, calibrations=plain)
    assert "Equalizing was tried and not used" in Read(render(msgspec.structs.replace(full(), quantizing=without))).text
    assert "Equalizing was tried and not used" not in Read(render(full())).text


@pytest.mark.parametrize(("temperature", "said"), [(0.05, "the coldest sought"), (20.0, "the hottest sought")])
def test_a_temperature_at_the_end_of_the_search_is_not_told_as_fitted(temperature: float, said: str) -> None:
    stopped = msgspec.structs.replace(rule("cpu.u8s8.onnx"), temperature=temperature)
    findings = msgspec.structs.replace(full(), confidence=Confidence((stopped,)))
    assert f"{said}, not a best fit" in Read(render(findings)).text
    assert "not a best fit" not in Read(render(full())).text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_refused_with_its_place(value: float, tmp_path: Path) -> None:
    diagnosis = Diagnosis((LayerNoise("a", "t", 3.0), LayerNoise("b", "t", value)))
    findings = msgspec.structs.replace(bare(), quantizing=Quantizing(1, diagnosis=diagnosis))
    with pytest.raises(CompileError, match=r"findings\.quantizing\.diagnosis\.layers\[1\]\.sqnr_db is"):
        report_of(findings)
    with pytest.raises(CompileError):
        write_report(findings, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CompileError, match="takes no report"):
        write_report(bare(), tmp_path / "file")


_WRITE = """
import sys
from pathlib import Path
from model_compiler.reporting.report import write_report
from tests.model_compiler.reporting.example import full
write_report(full(), Path(sys.argv[1]))
"""


@pytest.mark.integration
def test_another_process_writes_the_same_bytes(full_page: Path, tmp_path: Path) -> None:
    """With other hashes, and settings of matplotlib's that the user made for pictures of their own."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.grid: True\nsvg.fonttype: path\nlines.linewidth: 9\n")
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path), "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", _WRITE, str(tmp_path)], check=True, env=environment, cwd=Path.cwd())
    for name in ("report.html", "report.json"):
        assert (tmp_path / name).read_bytes() == full_page.with_name(name).read_bytes()
