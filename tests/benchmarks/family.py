"""A program with a child in another session that heeds no SIGTERM: `python family.py READY_FILE`."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    ready, *role = sys.argv[1:]
    if role:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(ready).touch()
    else:
        subprocess.Popen([sys.executable, __file__, ready, "child"], start_new_session=True)
    signal.pause()
