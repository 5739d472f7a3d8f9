"""`foothill compile digits`; the command as a whole runs in test_pipeline.py."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from model_compiler.cli import app, show
from model_compiler.digits.recipe import DigitsBundles
from model_compiler.pack import Packed, read_measurements
from model_compiler.summary import Summary


def all_of(bundles: DigitsBundles) -> tuple[Packed, ...]:
    return bundles.cloud, bundles.edge, bundles.bad


def test_json_is_one_document_with_digests_and_measurements(
    bundles: DigitsBundles, capsys: pytest.CaptureFixture[str]
) -> None:
    show(all_of(bundles), json=True)
    summaries = msgspec.json.decode(capsys.readouterr().out, type=list[Summary])
    assert [each.bundle for each in summaries] == ["digits-cloud@1", "digits-edge@1", "digits-edge@2"]
    assert summaries[1].digest == bundles.edge.digest
    assert summaries[1].directory == str(bundles.edge.directory)
    assert summaries[1].measurements == read_measurements(bundles.edge)


def test_the_table_fits_a_narrow_terminal(
    bundles: DigitsBundles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(all_of(bundles), json=False)
    lines = capsys.readouterr().out.splitlines()
    table, told = lines[: 1 + 5], lines[1 + 5 :]
    assert table[-1].startswith("digits-edge@2")
    assert not any("…" in line for line in table)
    digests = [f"digest of {each.manifest.reference}: {each.digest}" for each in all_of(bundles)]
    assert told == ["score: accuracy", *digests]


def test_a_directory_that_cannot_be_made_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["digits", "--out", str(tmp_path / "file" / "bundles")])
    assert result.exit_code == 1
    assert result.stderr.startswith("foothill compile: --out ")
    assert "Name another" in result.stderr


@pytest.mark.parametrize(
    "more", [["--target", "cpu-arm"], ["--model", "cats"], ["--calibration", "cats"], ["--max-drop", "1"]]
)
def test_an_option_that_a_recipe_would_not_hear_is_refused(tmp_path: Path, more: list[str]) -> None:
    result = CliRunner().invoke(app, ["recipe.toml", *more, "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{more[0]} goes with --onnx" in result.stderr
