"""The service's unit: systemd takes it, for every role that it is for, and what it may do is little."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foothill.commands import build
from runtime.serving.models.hosting import DRAIN_S

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = SYSTEMD / "foothill@.service"
ROLES = ("edge", "cloud", "router")
NEWER = ("RestartSteps", "RestartMaxDelaySec")
"""Keys that systemd 254 brought; those before pass over them with a word."""
MOST_EXPOSED = 2.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings() -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def installed(directory: Path, role: str, *, gpu: bool) -> Path:
    """The unit as on a machine, but for the place of the command."""
    unit = directory / f"foothill@{role}.service"
    unit.write_text(UNIT.read_text().replace("/opt/foothill/bin/foothill", sys.executable))
    if gpu:
        shutil.copytree(SYSTEMD / "foothill@edge.service.d", directory / f"{unit.name}.d")
    return unit


def analysed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@pytest.mark.parametrize("gpu", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("role", ROLES)
def test_systemd_takes_it_without_a_word(tmp_path: Path, role: str, gpu: bool) -> None:
    verified = analysed("verify", "--man=no", str(installed(tmp_path, role, gpu=gpu)))
    about = [line for line in verified.stderr.splitlines() if "foothill" in line or "gpu.conf" in line]
    assert [line for line in about if not any(f"'{key}'" in line for key in NEWER)] == []


@needs_systemd
def test_it_may_do_little(tmp_path: Path) -> None:
    told = analysed("security", "--offline=true", "--no-pager", str(installed(tmp_path, "edge", gpu=False))).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    assert float(found.group(1)) <= MOST_EXPOSED, told


@pytest.mark.parametrize("role", ROLES)
def test_its_command_is_one_of_ours(role: str) -> None:
    command = settings()["ExecStart"].replace("%i", role).split()
    assert command[0] == "/opt/foothill/bin/foothill"
    assert CliRunner().invoke(build(role), [*command[1:3], "--help"]).exit_code == 0
    assert command[3] == f"/etc/foothill/{role}.toml"


def test_it_waits_for_the_draining_and_never_gives_up() -> None:
    told = settings()
    assert float(told["TimeoutStopSec"]) > DRAIN_S
    assert (told["Restart"], told["StartLimitIntervalSec"], told["Type"]) == ("always", "0", "notify")


def test_a_gpu_is_let_in_by_the_drop_in_alone() -> None:
    told = (SYSTEMD / "foothill@edge.service.d" / "gpu.conf").read_text()
    assert "PrivateDevices=no" in told
    assert settings()["PrivateDevices"] == "yes"
    paths = re.findall(r"^DeviceAllow=(/\S+) rw$", told, re.MULTILINE)
    assert paths
    assert not [path for path in paths if "*" in path], "systemd takes patterns for groups only"
