"""`restart_node.py PID_FILE LOG PROGRAM [ARGUMENTS...]`: ends the process with SIGKILL and starts the program anew."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path


def kill(pid: int) -> None:
    gone = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([gone], [], [], 30)
    os.close(gone)


def main(pid_file: Path, log: Path, command: list[str]) -> None:
    if pid_file.exists():
        with contextlib.suppress(ProcessLookupError):
            kill(int(pid_file.read_text()))
    with log.open("ab") as output:
        node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    pid_file.write_text(str(node.pid))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
