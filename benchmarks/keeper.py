"""Runs a program and leaves nothing of it behind: `python -m benchmarks.keeper CORE PROGRAM [ARGUMENTS...]`.

Servers that are made of several processes lose some when they are killed, and a paused one takes no SIGTERM. The keeper
adopts what its program lost (prctl(2), PR_SET_CHILD_SUBREAPER), and on SIGTERM resumes, asks, and then kills all of it.
Shared memory that they forgot goes with them.
It runs on CORE, and so does everything below it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.tree import descendants, send, shared_memory
from foothill import child as child_program

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.1
_POLL_S = 0.02
GRACE_S = 5.0
"""Less than what `foothill.processes` gives a child before it kills it."""


def main(core: int, command: Sequence[str]) -> int:
    """Returns the program's exit code, or 0 when it was told to end."""
    told: list[int] = []  # no Event: setting one while it is being set, by another signal, waits for ever
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, lambda number, _frame: told.append(number))
    os.sched_setaffinity(0, {core})
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")
    program = subprocess.Popen([sys.executable, "-I", "-S", str(child_program.__file__), str(os.getpid()), *command])
    try:
        while program.poll() is None and not told:
            time.sleep(_LOOK_S)
    finally:
        _end(program)
    return 0 if told else program.returncode


def _end(program: subprocess.Popen[bytes]) -> None:
    """The program is asked, and everyone who is left then is killed."""
    running = descendants(os.getpid())
    shared = shared_memory(running)
    send(running, signal.SIGCONT)
    if program.poll() is None:
        program.terminate()
        try:
            program.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
    while _some_left():
        send(descendants(os.getpid()), signal.SIGKILL)
        time.sleep(_POLL_S)
    for file in shared:
        file.unlink(missing_ok=True)


def _some_left() -> bool:
    """Reaps the dead: what has lost its parent is a child of this process."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
