"""A program with a child in another session that heeds no SIGTERM: `python family.py READY_FILE`.

The child has a file of shared memory mapped, of the name of READY_FILE's directory, and forgets it.
"""

from __future__ import annotations

import mmap
import signal
import subprocess
import sys
from pathlib import Path


def shared_by(ready: Path) -> Path:
    return Path("/dev/shm") / f"family-{ready.parent.name}"


if __name__ == "__main__":
    ready, *role = sys.argv[1:]
    if role:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with shared_by(Path(ready)).open("wb+") as file:
            file.truncate(4096)
            kept = mmap.mmap(file.fileno(), 4096)
        Path(ready).touch()
    else:
        subprocess.Popen([sys.executable, __file__, ready, "child"], start_new_session=True)
    signal.pause()
