"""Runs of the suite that are cut short: interrupted, killed, or by a node that stays away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.hil.commands import FOOTHILL, SHORT, fleet, hil, run
from tests.hil.site import NODE, ROOT, Site

pytestmark = pytest.mark.integration


def test_ctrl_c_in_the_midst_puts_the_node_back_and_says_partial(site: Site, tmp_path: Path) -> None:
    before, report = site.standing(), tmp_path / "report.json"
    command = hil(site, "--only", "activation,revert,recovery", "--report", str(report))
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end_s = time.monotonic() + 120
    while site.standing()[0] == before[0]:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < end_s
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=180)[0]
    assert running.returncode == 130, said
    assert site.standing()[0] == before[0]
    found = json.loads(report.read_bytes())["report"]
    assert (found["verdict"], found["interrupted"]) == ("partial", True), said
    assert found["checks"][-1]["name"] == "restored"
    assert found["checks"][-1]["outcome"] == "passed"


def test_a_board_that_does_not_come_back_fails_and_is_revived_in_the_end(site: Site, tmp_path: Path) -> None:
    """Its restart kills and does not start: what the suite cannot mend it says."""
    pid = site.pid_file
    boards = tmp_path / "boards.toml"
    text = site.boards("recovery_s = 1.0, update_s = 5.0").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("restart")]
    boards.write_text("\n".join([*lines, f'restart = {{ argv = ["sh", "-c", "kill -9 $(cat {pid})"] }}']) + "\n")
    known = ("--board", NODE, "--boards", str(boards), "--fleet", site.fleet.url)
    options = ("--fleet-token", str(site.fleet_token), "--only", "recovery", "--json")
    done = run([*FOOTHILL, "hil", "run", *known, *options, *SHORT])
    try:
        assert done.returncode == 1, done.stdout + done.stderr
        checks = json.loads(done.stdout)["report"]["checks"]
        failed = {check["name"]: check["detail"] for check in checks if check["outcome"] == "failed"}
        assert "is not ready after 1 s" in failed["recovery"]
        assert "digits is not served after 5 s" in failed["restored"]
        assert "the fleet manager does not answer" not in failed["restored"]
    finally:
        site.start_node()
    assert os.path.exists(f"/proc/{pid.read_text()}")


def test_what_a_killed_run_left_behind_is_not_taken_for_the_nodes_own(site: Site) -> None:
    before = site.standing()[0]
    running = subprocess.Popen(hil(site, "--only", "activation"), cwd=ROOT, stdout=subprocess.DEVNULL)
    end_s = time.monotonic() + 120
    while site.standing()[0] == before:
        assert running.poll() is None
        assert time.monotonic() < end_s
        time.sleep(0.01)
    running.kill()
    running.wait()
    site.settle()
    done = run(hil(site, "--only", "activation"))
    assert done.returncode == 1, done.stdout
    assert "an earlier run left hil-" in done.stdout
    assert "foothill fleet rollout start digits-edge@2 --nodes board-1 --gate health" in done.stdout.replace("\n", " ")
    assert (
        fleet(site, "rollout", "start", "digits-edge@2", "--nodes", NODE, "--gate", "health", "--watch").returncode == 0
    )
    assert site.standing()[0] == before
