"""Every benchmark runs through on little time, and its report holds figures that can be true. Speeds are not tested."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import client, cold_start, faults, mqtt, overload, router, serving
from benchmarks.__main__ import BENCHMARKS
from benchmarks.bundles import ASSETS
from benchmarks.fault_story import FAULTS
from benchmarks.report import Report, markdown
from benchmarks.rounds import MINIMAL, Ratio
from benchmarks.stage import perform
from model_compiler.digits.recipe import DigitsBundles

pytestmark = pytest.mark.integration

CASES: dict[str, set[Any]] = {
    "serving": {
        *(serving.RAW, serving.LIMIT, serving.EDGE, serving.EDGE_IDS, serving.CLOUD, serving.PREDICT),
        serving.EDGE_TWO,
    },
    "overload": {overload.STEADY, overload.ENGINE, overload.TWICE, overload.AFTER},
    "cold start": {cold_start.ARTIFACT, cold_start.FIRST, cold_start.KEPT},
    "router": {router.DIRECT, router.PROXIED, router.LEASE, router.BARE},
    "faults": {*FAULTS, faults.CLOUD_GONE, faults.TWICE, *faults.PICKS},
    "client": {
        client.BARE,
        client.HTTPX,
        client.HTTPX_ASYNC,
        "foothill.Client, leased",
        "foothill.AsyncClient, leased",
    },
    "mqtt": {mqtt.DESIRED, mqtt.PAHO},
}
MAY_BE_ANYTHING = {"added_p50_us"}
MAY_BE_NOTHING = {"client_busy", "late", "failed", "refused_share", "back_after_s", "recovery_s"}


@pytest.fixture
def digits(bundles: DigitsBundles) -> Path:
    return bundles.edge.directory.parent


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_through_and_reports(name: str, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ASSETS, raising=False)
    allowed = os.sched_getaffinity(0)
    report = perform(BENCHMARKS[name], MINIMAL, digits)
    assert os.sched_getaffinity(0) == allowed
    assert report.name == name
    rows = [msgspec.structs.asdict(row) for row in report.rows]
    assert CASES[name] <= {row["case"] for row in rows}
    for row in rows:
        for field, value in row.items():
            assert can_be_true(field, value), (field, row)
    assert_readable(report)


def can_be_true(field: str, value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    if isinstance(value, Ratio):
        ordered = value.low <= value.median <= value.high
        return ordered and (field in MAY_BE_ANYTHING or value.low > 0)
    return math.isfinite(value) and (value > 0 or (field in MAY_BE_NOTHING and value == 0))


def assert_readable(report: Report) -> None:
    told = msgspec.json.decode(msgspec.json.encode(report))
    assert len(told["rows"]) == len(report.rows)
    assert told["meanwhile"]["other_processes"] >= 0
    text = markdown(report)
    assert text.startswith(f"## {report.name}\n")
    assert sum(line.startswith("| ") for line in text.splitlines()) == len(report.rows) + 2
