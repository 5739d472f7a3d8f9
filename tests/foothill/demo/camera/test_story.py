"""The demo itself, where its wheels have been fetched."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from foothill.demo.camera import parcels
from foothill.site import MachineError

PACKAGES = Path(__file__).parents[4] / ".venv/camera-demo"
COMMAND = [sys.executable, "-m", "foothill", "demo-camera", "--packages", str(PACKAGES)]


def _missing() -> str:
    try:
        parcels.check_there(PACKAGES)
    except MachineError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.story, pytest.mark.skipif(bool(_missing()), reason="needs the wheels of make demo-camera")]


def test_the_demo_says_what_was_seen_and_what_left(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--seconds", "15"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "/cameras" in done.stdout
    assert "fewer bytes left the box" in done.stdout


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "Look at it" not in (line := process.stdout.readline()):
        assert line
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert complaint == "Stopped; nothing is left running.\n"
