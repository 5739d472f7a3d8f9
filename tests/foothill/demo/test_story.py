"""The demo itself, rehearsed: what it reports must be whole, and nothing may have failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from foothill.demo.report import read_report

pytestmark = [pytest.mark.story, pytest.mark.timeout(400)]


def test_the_demo_tells_the_whole_story_without_a_failed_request(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "foothill", "demo", "--quick", "--report", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = read_report(file)
    assert (report.requests, report.failed, report.degraded) == (2000, 0, 0)
    assert 0.4 < report.edge_share < 1.0
    assert report.edge_share + report.escalated / report.requests == pytest.approx(1.0)
    assert report.disagreement <= report.disagreement_at_edge
    assert report.disagreement < report.epsilon * 1.5
    assert report.accuracy.edge < report.accuracy.hybrid
    assert report.latency_ms.leased.n + report.latency_ms.proxied.n == report.requests
    assert report.latency_ms.proxied.n == pytest.approx(0.1 * report.requests, rel=0.6)
    assert report.latency_ms.hybrid.p50 < report.latency_ms.all_cloud.p50
    for phase in ("network", "queue", "decode", "infer", "escalate"):
        assert report.latency_ms.hybrid.phases[phase].n > 0
    assert 0 < report.bytes_off_site.hybrid < report.bytes_off_site.all_cloud
    assert report.models.student_int8.bytes < report.models.teacher.bytes
    assert report.rollout.nodes == 3
    bad = report.bad_rollout
    assert (bad.stopped_stage, bad.exposed_nodes, bad.reverted_nodes) == (1, 1, 1), bad.reason
    assert report.countries >= 30
