"""The whole suite against a real site: broker, fleet manager, a node that is killed in the midst of its updates."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.acceptance import CHECKS, Acceptance
from hil.keys import create, read_public
from runtime.links import acceptance_reports as reports
from runtime.links.signatures import key_id
from tests.hil.relay import TOKEN, relay
from tests.hil.site import NODE, ROOT, Site
from tests.hil.test_sensors import ORIN_NANO

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

SHORT = ("--requests", "30", "--step-s", "0.5", "--concurrency", "2", "--soak-s", "6")
FOOTHILL = (sys.executable, "-m", "foothill")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        yield site.start()
    finally:
        site.stop()


def hil(site: Site, *arguments: str, more: str = "") -> list[str]:
    known = ("--board", NODE, "--boards", str(site.boards(more=more)))
    fleet = ("--fleet", site.fleet.url, "--fleet-token", str(site.fleet_token))
    return [*FOOTHILL, "hil", "run", *known, *fleet, *SHORT, *arguments]


def fleet(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    known = ("--fleet", site.fleet.url, "--token-file", str(site.fleet_token))
    return _run([*FOOTHILL, "fleet", *arguments, *known])


def _run(command: list[str], path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`path`: a folder of programs that go before the system's."""
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path is not None else None
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False, env=env)


def programs(directory: Path) -> Path:
    """A `tegrastats` that prints what a Jetson's prints."""
    directory.mkdir()
    program = directory / "tegrastats"
    program.write_text(f"#!/bin/sh\necho '{ORIN_NANO}'\n")
    program.chmod(0o755)
    return directory


def test_a_sound_board_passes_everything_is_put_back_and_may_have_models(site: Site, tmp_path: Path) -> None:
    before = site.standing()
    key, report = tmp_path / "hil.key", tmp_path / "report.json"
    public = create(key)
    (tmp_path / "relay.token").write_text(TOKEN)
    with relay(off=site.kill_node, on=site.start_node) as (url, asked):
        switch = f'http = "{url}/%s", token_file = "{tmp_path}/relay.token"'
        more = f"power_off = {{ {switch % 'off'} }}\npower_on = {{ {switch % 'on'} }}\noff_s = 0.2\n"
        command = hil(site, "--report", str(report), "--key", str(key), more=f'{more}sensors = ["tegrastats"]\n')
        done = _run(command, programs(tmp_path / "bin"))
    assert asked == ["/off", "/on"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verdict: passed" in done.stdout

    found = reports.verify(reports.read(report.read_bytes()), {key_id(public): public})
    assert found.verdict == "passed", done.stdout
    assert {check.name for check in found.checks} == set(CHECKS)
    assert {check.outcome for check in found.checks} == {"passed"}
    assert (found.node, found.target) == (NODE, "cpu-x86")
    assert found.bundles[0].digest == site.digests["2"]
    _assert_hard_parts(found)
    assert site.standing() == before
    assert "<svg" in report.with_suffix(".html").read_text()
    assert _run([*FOOTHILL, "hil", "verify", str(report), "--key", f"{key}.pub"]).returncode == 0

    _assert_demanded(site, report, tmp_path)


def _assert_hard_parts(found: Acceptance) -> None:
    """The node was really killed in the midst, and the bundles that had to be taken back were."""
    cuts = [check.detail for check in found.checks if check.name == "recovery"]
    assert len(cuts) == 2
    assert "killed in phase probation" in cuts[1]
    (heat,) = (check for check in found.checks if check.name == "thermals")
    assert heat.figures["watts"] == pytest.approx(4.523)
    assert heat.figures["joules_per_answer"] > 0
    reverts = {check.model: check.detail for check in found.checks if check.name == "revert"}
    assert "fails its golden test" in reverts["digits"]
    assert "failed on probation" in reverts["hil-probe"]
    (activation,) = (check for check in found.checks if check.name == "activation")
    assert activation.figures["failed"] == 0
    assert activation.figures["by_new_version"] > 0
    assert sum("the previous bundle" in check.detail for check in found.checks) == 1


def _assert_demanded(site: Site, report: Path, tmp_path: Path) -> None:
    """A rollout is refused until the report is there; another signer's does not help."""
    other = tmp_path / "other.key"
    create(other)
    assert fleet(site, "acceptance", "require", "cpu-x86", "--key", f"{other}.pub").returncode == 0
    refused = fleet(site, "acceptance", "submit", str(report))
    assert refused.returncode == 1
    assert "not among the trusted ones" in refused.stderr
    start = ("rollout", "start", "digits-edge@1", "--gate", "health", "--nodes", NODE)
    refused = fleet(site, *start)
    assert refused.returncode == 1
    assert "cpu-x86: no passed report of this target was submitted (board-1)" in refused.stderr

    trusted = read_public(str(tmp_path / "hil.key.pub"))
    assert fleet(site, "acceptance", "require", "cpu-x86", "--key", trusted).returncode == 0
    assert fleet(site, "acceptance", "submit", str(report)).returncode == 0
    assert NODE in fleet(site, "acceptance", "list").stdout
    site.fleet.roll_out("digits-edge@1")
    site.fleet.roll_out("digits-edge@2")
    assert fleet(site, "acceptance", "lift", "cpu-x86").returncode == 0


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
    text = site.boards("recovery_s = 3.0, update_s = 20.0").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("restart")]
    boards.write_text("\n".join([*lines, f'restart = {{ argv = ["sh", "-c", "kill -9 $(cat {pid})"] }}']) + "\n")
    known = ("--board", NODE, "--boards", str(boards), "--fleet", site.fleet.url)
    options = ("--fleet-token", str(site.fleet_token), "--only", "recovery", "--json")
    done = _run([*FOOTHILL, "hil", "run", *known, *options, *SHORT])
    try:
        assert done.returncode == 1, done.stdout + done.stderr
        checks = json.loads(done.stdout)["report"]["checks"]
        failed = {check["name"]: check["detail"] for check in checks if check["outcome"] == "failed"}
        assert "is not ready after 3 s" in failed["recovery"]
        assert "restored" in failed
        assert "foothill fleet rollout start digits-edge@2" in failed["restored"] or "away" in failed["restored"]
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
    done = _run(hil(site, "--only", "activation"))
    assert done.returncode == 1, done.stdout
    assert "an earlier run left hil-" in done.stdout
    assert "foothill fleet rollout start digits-edge@2 --nodes board-1 --gate health" in done.stdout.replace("\n", " ")
    assert (
        fleet(site, "rollout", "start", "digits-edge@2", "--nodes", NODE, "--gate", "health", "--watch").returncode == 0
    )
    assert site.standing()[0] == before


def test_the_suite_as_tests(site: Site) -> None:
    known = ("--board", NODE, "--boards", str(site.boards()))
    done = _run([sys.executable, "-m", "pytest", "hil", *known, "--only-checks", "golden,latency"])
    assert done.returncode == 0, done.stdout
    assert "5 passed, 8 skipped" in done.stdout
