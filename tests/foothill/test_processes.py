"""Children of a real process, stopped by real signals: none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from foothill.processes import ProcessError, Processes, file_ready, http_ready
from runtime.links.process.ports import free_ports

pytestmark = pytest.mark.integration

PYTHON = sys.executable
# Says it is ready, starts a grandchild, and ends on SIGTERM as programs do.
CALM = """
import pathlib, signal, subprocess, sys
grandchild = subprocess.Popen(["sleep", "300"])
pathlib.Path(sys.argv[1]).write_text(str(grandchild.pid))
signal.pause()
"""
STUBBORN = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text("up")
while True:
    signal.pause()
"""
PARENT = """
import json, pathlib, signal, sys
from foothill.processes import Processes, file_ready, terminate_as_interrupt

here = pathlib.Path(sys.argv[1])
with terminate_as_interrupt(), Processes(here, grace_s=float(sys.argv[2])) as processes:
    try:
        started = []
        for at, program in enumerate(sys.argv[3:]):
            ready = here / f"ready{at}"
            child = processes.start(f"child{at}", [sys.executable, "-c", program, str(ready)])
            processes.wait_ready(child, file_ready(ready))
            started.append(child)
        pids = [child.pid for child in started]
        pids += [int(text) for at in range(len(started)) if (text := (here / f"ready{at}").read_text()).isdigit()]
        (here / "pids.partial").write_text(json.dumps(pids))
        (here / "pids.partial").rename(here / "pids")
        while True:
            signal.pause()
    except KeyboardInterrupt:
        (here / "interrupted").touch()
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pids: Sequence[int], within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while any(map(alive, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def run_parent(here: Path, *programs: str, grace_s: float = 5.0) -> tuple[subprocess.Popen[bytes], list[int]]:
    parent = subprocess.Popen([PYTHON, "-c", PARENT, str(here), str(grace_s), *programs], start_new_session=True)
    until = time.monotonic() + 30
    while not (here / "pids").exists():
        assert parent.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return parent, json.loads((here / "pids").read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_stops_parent_children_and_grandchildren(tmp_path: Path, number: signal.Signals) -> None:
    parent, pids = run_parent(tmp_path, CALM, CALM)
    assert len(pids) == 4
    os.killpg(parent.pid, number)
    assert parent.wait(15) == 0
    assert (tmp_path / "interrupted").exists()
    assert gone(pids, within_s=0.5)


@pytest.mark.parametrize(("number", "stops"), [(signal.SIGINT, True), (signal.SIGHUP, False)])
def test_what_the_shell_had_ignored(tmp_path: Path, number: signal.Signals, stops: bool) -> None:
    """A shell starts `command &` with Ctrl-C ignored, and `nohup command` with the hang-up ignored."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        parent, pids = run_parent(tmp_path, CALM)
    finally:
        signal.signal(number, before)
    parent.send_signal(number)
    if not stops:
        time.sleep(0.3)
        assert parent.poll() is None
        parent.terminate()
    assert parent.wait(15) == 0
    assert gone(pids, within_s=0.5)


def test_a_second_interrupt_ends_a_child_that_will_not(tmp_path: Path) -> None:
    parent, pids = run_parent(tmp_path, STUBBORN, grace_s=60.0)
    os.killpg(parent.pid, signal.SIGINT)
    while not (tmp_path / "interrupted").exists():
        time.sleep(0.01)
    time.sleep(0.3)
    assert alive(pids[0])
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(10) == 0
    assert gone(pids, within_s=0.5)


def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent, pids = run_parent(tmp_path, CALM, CALM)
    parent.kill()
    parent.wait(10)
    children, grandchildren = pids[:2], pids[2:]
    try:
        assert gone(children)
    finally:
        # Only a child's own care ends what it started when it is itself ended from outside.
        for pid in filter(alive, grandchildren):
            os.kill(pid, signal.SIGKILL)


def test_a_child_that_will_not_stop_is_killed_after_the_grace(tmp_path: Path) -> None:
    with Processes(tmp_path, grace_s=0.3) as processes:
        ready = tmp_path / "ready"
        child = processes.start("stubborn", [PYTHON, "-c", STUBBORN, str(ready)])
        processes.wait_ready(child, file_ready(ready))
        assert processes.stop(child) == -signal.SIGKILL
    assert not alive(child.pid)


def test_children_are_stopped_in_the_reverse_order_of_their_start(tmp_path: Path) -> None:
    program = """
import pathlib, signal, sys
def end(*_):
    with open(sys.argv[2], "a") as log:
        log.write(sys.argv[3])
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1]).touch()
while True:
    signal.pause()
"""
    order = tmp_path / "order"
    with Processes(tmp_path) as processes:
        for name in "abc":
            ready = tmp_path / name
            child = processes.start(name, [PYTHON, "-c", program, str(ready), str(order), name])
            processes.wait_ready(child, file_ready(ready))
    assert order.read_text() == "cba"


def test_a_child_that_ends_early_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("edge-tokyo", [PYTHON, "-c", "import sys; print('hi'); sys.exit('port 8100 is taken')"])
        with pytest.raises(ProcessError, match=r"edge-tokyo ended with exit code 1") as caught:
            processes.wait_ready(child, file_ready(tmp_path / "never"))
        assert "port 8100 is taken" in str(caught.value)
        assert str(child.log) in str(caught.value)
        with pytest.raises(ProcessError):
            processes.check()


def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("broker", ["/no/such/mosquitto"])
        with pytest.raises(ProcessError, match="No such file"):
            processes.wait_ready(child, file_ready(tmp_path / "never"))


def test_a_child_that_is_killed_is_noticed(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("sleeper", ["sleep", "300"])
        processes.check()
        os.kill(child.pid, signal.SIGKILL)
        until = time.monotonic() + 5
        while child.running:
            assert time.monotonic() < until
        with pytest.raises(ProcessError, match="killed by SIGKILL"):
            processes.check()


def test_a_child_that_never_gets_ready_is_an_error(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("sleeper", ["sleep", "300"])
        with pytest.raises(ProcessError, match=r"not ready after 0\.1 s"):
            processes.wait_ready(child, file_ready(tmp_path / "never"), timeout_s=0.1)


def test_readiness_over_http(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Processes(tmp_path) as processes:
        child = processes.start("web", [PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=tmp_path)
        processes.wait_ready(child, http_ready(f"http://127.0.0.1:{port}/"))
        assert not http_ready(f"http://127.0.0.1:{port}/absent")()
        assert processes.kill(child) == -signal.SIGKILL
        assert not http_ready(f"http://127.0.0.1:{port}/")()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")
def test_a_users_own_modules_stay_out(tmp_path: Path) -> None:
    (tmp_path / "this.py").write_text("raise SystemExit(3)")
    with Processes(tmp_path) as processes:
        assert processes.start("zen", [PYTHON, "-m", "this"], cwd=tmp_path).reap() == 0


def test_environment_is_added_to(tmp_path: Path) -> None:
    program = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['ADDED'] + os.environ['PATH'])"
    with Processes(tmp_path) as processes:
        child = processes.start("env", [PYTHON, "-c", program, str(tmp_path / "out")], env={"ADDED": "yes:"})
        assert child.reap() == 0
    assert (tmp_path / "out").read_text() == "yes:" + os.environ["PATH"]


def test_children_are_started_from_the_main_thread_only(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def start() -> None:
        try:
            Processes(tmp_path).start("sleeper", ["sleep", "300"])
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
