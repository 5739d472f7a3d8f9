"""What is told of many seeds: figures, intervals, the table, the pictures, the command."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from router.cli import app
from router.simulation import pictures
from router.simulation.campaign import simulate
from router.simulation.case import Case
from router.simulation.results import Report, Times, band, quantile, report
from router.simulation.table import table
from router.simulation.traces import TraceError, read
from router.simulation.world import draw
from runtime import regions

TABLE = regions.load()


def took(p99_ms: float) -> Times:
    return Times(mean_ms=1.0, p50_ms=1.0, p99_ms=p99_ms, p999_ms=p99_ms, failed=0.0, refused=0.0, hedged=0.0)


def test_ratios_are_taken_seed_by_seed() -> None:
    found = report(Case(), {"oracle": [took(1.0), took(10.0)], "p2c": [took(2.0), took(20.0)]})
    rows = {row.policy: row for row in found.rows}
    assert rows["p2c"].times_oracle.low == rows["p2c"].times_oracle.high == 2.0
    assert rows["p2c"].p99_ms.low < rows["p2c"].p99_ms.mean == 11.0 < rows["p2c"].p99_ms.high
    assert [row.policy for row in found.rows] == ["oracle", "p2c"], "best first"


def test_the_interval_is_that_of_a_mean() -> None:
    rng = random.Random(1)
    found = band([rng.gauss(5.0, 1.0) for _ in range(100)])
    assert found.low == pytest.approx(found.mean - 0.196, abs=0.05)
    assert found.high == pytest.approx(found.mean + 0.196, abs=0.05)
    assert quantile([1.0, 2.0, 3.0], 0.999) == 3.0


def test_the_table_fits_a_terminal_and_names_what_was_simulated() -> None:
    found = report(Case(), {"oracle": [took(100.0)] * 3, "least-connections": [took(250.0)] * 3})
    console = Console(width=80, file=StringIO())
    console.print(table(found))
    shown = cast(StringIO, console.file).getvalue()
    assert "32 nodes (world), 4 routers, load 0.8" in shown
    assert "least-connections" in shown
    assert "2.50 2.50–2.50" in shown
    assert "…" not in shown


def test_seeds_in_other_processes_say_the_same() -> None:
    case = Case(nodes=4, requests=200, warm_up_s=0.2)
    told: list[None] = []
    alone = simulate(case, TABLE, ["p2c"], 2, tell=lambda: told.append(None))
    assert len(told) == 2
    assert alone == simulate(case, TABLE, ["p2c"], 2, processes=2)


def test_the_command_prints_a_report() -> None:
    asked = ["simulate", "--seeds", "1", "--requests", "1000", "--nodes", "4", "--processes", "1", "--json"]
    ran = CliRunner().invoke(app, [*asked, "--policy", "foothill"])
    assert ran.exit_code == 0, ran.output
    found = msgspec.json.decode(ran.stdout, type=Report)
    assert {row.policy for row in found.rows} == {"foothill", "oracle"}
    assert (found.case.nodes, found.seeds) == (4, 1)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--policy", "magic"), "There is no policy 'magic'"),
        (("--load", "1.5"), "--load"),
        (("--routers", "0"), "--routers"),
        (("--trace", "nowhere.csv"), "nowhere.csv is no trace"),
    ],
)
def test_what_cannot_be_simulated_is_said(wrong: tuple[str, str], told: str) -> None:
    ran = CliRunner().invoke(app, ["simulate", *wrong])
    assert ran.exit_code == 2
    assert told in ran.stderr


def test_arrivals_of_a_trace(tmp_path: Path) -> None:
    azure, mooncake = tmp_path / "azure.csv", tmp_path / "mooncake.jsonl"
    rows = ((46.0, 2), (46.5, 30), (48.0, 10))
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:15:{at:010.7f},374,{size}\n" for at, size in rows)
    )
    mooncake.write_text("".join(f'{{"timestamp": {at * 1000}, "output_length": {size}}}\n' for at, size in rows))
    for path in (azure, mooncake):
        found = read(path)
        assert found.gaps == pytest.approx([0.5, 1.5])
        assert found.sizes == pytest.approx([1.5, 0.5])
    world = draw(Case(requests=200, warm_up_s=0.1), TABLE, 1, found)
    assert sorted({request.size for request in world.requests}) == pytest.approx([0.5, 1.5])


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "TIMESTAMP,GeneratedTokens\n2023-11-16 18:15:46,1\n"])
def test_what_is_no_trace_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"trace\.csv"):
        read(path)


@pytest.mark.parametrize("draws", [pictures.herding, pictures.joining, pictures.failing])
def test_a_picture_is_drawn_in_both_lights(draws: Callable[..., str]) -> None:
    drawn = draws(TABLE, requests=1000)
    root = ElementTree.fromstring(drawn)
    paths = [each for each in root.iter("{http://www.w3.org/2000/svg}path") if each.get("class", "").startswith("s")]
    assert len(paths) >= 2
    assert "prefers-color-scheme: dark" in drawn


def test_every_picture_of_the_documentation_is_there() -> None:
    folder = Path(__file__).parents[3] / "docs"
    page = (folder / "routing.md").read_text()
    assert all(
        f"pictures/{name}.svg" in page and (folder / "pictures" / f"{name}.svg").exists() for name in pictures.PICTURES
    )
