"""The whole suite against a real site: broker, fleet manager, a node that is killed in the midst of its updates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from contracts.acceptance import CHECKS, Acceptance
from hil.keys import create, read_public
from runtime.links.bundles import acceptance_reports as reports
from runtime.links.trust.signatures import key_id
from tests.hil.commands import FOOTHILL, fleet, hil, run
from tests.hil.relay import TOKEN, relay
from tests.hil.site import NODE, Site
from tests.hil.test_sensors import ORIN_NANO

pytestmark = pytest.mark.integration


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
        done = run(command, programs(tmp_path / "bin"))
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
    assert run([*FOOTHILL, "hil", "verify", str(report), "--key", f"{key}.pub"]).returncode == 0

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


def test_the_suite_as_tests(site: Site) -> None:
    known = ("--board", NODE, "--boards", str(site.boards()))
    done = run([sys.executable, "-m", "pytest", "hil", *known, "--only-checks", "golden,latency"])
    assert done.returncode == 0, done.stdout
    assert "5 passed, 8 skipped" in done.stdout
