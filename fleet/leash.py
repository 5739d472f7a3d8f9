"""Becomes another program that dies with its parent: `python leash.py PARENT_PID PROGRAM [ARGUMENT...]`.

A broker without its supervisor would hold the port for ever, also after a kill -9. On Linux the kernel sends SIGTERM
when the parent goes (prctl(2), PR_SET_PDEATHSIG, which survives exec); elsewhere the program is only started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(parent):
        raise SystemExit(0)  # the parent was gone before the leash was on
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
