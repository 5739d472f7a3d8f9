"""One at a time: across threads and processes, also when a holder is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from model_compiler.exclusive import alone

HOLD = """
import sys, time
from pathlib import Path
from model_compiler.exclusive import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_no_two_are_inside_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    inside, most, lock = 0, 0, tmp_path / "new" / "lock"

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with alone(lock):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), alone(tmp_path / "lock"):
        raise KeyboardInterrupt
    with alone(tmp_path / "lock"):
        pass


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    with alone(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []
