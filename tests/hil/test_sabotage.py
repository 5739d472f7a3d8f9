"""Nodes with one thing wrong, in processes of their own: each must fail, and for its own reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.acceptance import Acceptance
from hil.boards import Board, Limits
from hil.opening import Opened, examine
from hil.plan import Plan
from tests.hil.sabotaged_node import TOKEN

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PLAN = Plan(requests=60, step_s=0.5, most_concurrency=2, open_shares=(0.5,), soak_s=6.0)


@contextmanager
def running(directory: Path, flaw: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.hil.sabotaged_node", str(directory), flaw]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


async def examined(url: str, *, p99_ms: float = 1e6) -> Acceptance:
    """No limit of time but one that a node breaks by itself: how fast others are says more of the machine."""
    board = Board(limits=Limits(p99_ms=p99_ms, min_throughput=0.0))
    what = Opened(board, "board", url, TOKEN, "", "", "", PLAN)
    return await examine(what, lambda line: None, lambda check: None)


def failures(report: Acceptance) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if check.outcome == "failed"}


async def test_a_sound_node_passes_all_that_needs_no_fleet(tmp_path: Path) -> None:
    with running(tmp_path, "sound") as url:
        report = await examined(url)
    assert failures(report) == {}
    assert report.verdict == "partial"
    (curve,) = report.curves
    assert [point.loop for point in curve.points] == ["closed", "closed", "open"]
    assert all(point.answered and not point.failed for point in curve.points)
    assert {"queue", "infer", "total"} <= set(curve.points[0].phases_ms)


async def test_a_wrong_result_fails_golden_parity_alone(tmp_path: Path) -> None:
    with running(tmp_path, "crooked") as url:
        report = await examined(url)
    assert set(failures(report)) == {"golden"}
    assert "output logits: off by up to 0.5" in failures(report)["golden"]
    assert report.verdict == "failed"


async def test_a_wrong_admin_token_fails_golden_parity_alone(tmp_path: Path) -> None:
    with running(tmp_path, "sound") as url:
        board = Board(limits=Limits(p99_ms=1e6, min_throughput=0.0))
        what = Opened(board, "board", url, "guess", "", "", "", PLAN)
        report = await examine(what, lambda line: None, lambda check: None)
    assert set(failures(report)) == {"golden"}
    assert "admin token" in failures(report)["golden"]


async def test_a_leak_fails_the_soak_alone(tmp_path: Path) -> None:
    with running(tmp_path, "leaky") as url:
        report = await examined(url)
    assert set(failures(report)) == {"soak"}
    assert "memory grew by" in failures(report)["soak"]
    assert "2 % and 4.1943 MB are allowed" in failures(report)["soak"]


async def test_a_slow_node_fails_its_limit_alone(tmp_path: Path) -> None:
    with running(tmp_path, "slow") as url:
        report = await examined(url, p99_ms=50.0)
    assert set(failures(report)) == {"latency"}
    assert "p99 is over its limit of 50 ms" in failures(report)["latency"]


async def test_a_node_that_fails_now_and_then_fails_with_its_own_words(tmp_path: Path) -> None:
    with running(tmp_path, "failing") as url:
        report = await examined(url)
    assert {"latency", "soak"} <= set(failures(report))
    assert "500" in failures(report)["soak"]
    assert "sabotage" in failures(report)["soak"]
