"""Ties the life of a child process to that of its parent, then becomes the child's real program.

Run as a file, `python child.py PARENT_PID PROGRAM [ARGUMENTS...]`, with the standard library only: the program that is
started may be anything. The kernel sends SIGTERM when the thread that started the child ends (prctl(2),
PR_SET_PDEATHSIG), even when the parent was killed and could clean up nothing; the setting survives execve(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent:
        # The parent ended before the line above, and will never be noticed.
        sys.exit(f"{command[0]}: the process that wanted this one (pid {parent}) is gone")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
