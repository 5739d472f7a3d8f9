"""A process that opens a bundle as a node's start does: `python -m benchmarks.opened DIRECTORY DIGEST [CACHE]`.

It tells what the opening took, without the warm-up behind the golden test, which takes a second of any model.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from benchmarks.told import Opened
from runtime.serving.engines.fingerprint import detect
from runtime.serving.engines.providers import Wish
from runtime.serving.models.golden import check_golden
from runtime.serving.models.loaded import LoadedModel


def main(directory: str, digest: str, cache: str = "") -> None:
    target, wish = detect().target, Wish(cache=Path(cache) if cache else None)
    memory, cpu_s, began_s = _memory_bytes(), time.process_time(), time.perf_counter()
    loaded = LoadedModel.open(Path(directory), digest, target=target, threads=1, wish=wish)
    loaded_s = time.perf_counter()
    check_golden(loaded)
    answered_s = time.perf_counter()
    told = Opened(
        load_ms=(loaded_s - began_s) * 1000.0,
        first_answer_ms=(answered_s - began_s) * 1000.0,
        cpu_s=time.process_time() - cpu_s,
        memory_bytes=_memory_bytes() - memory,
        from_kept=loaded.kept is not None,
    )
    loaded.close()
    sys.stdout.write(told.line())


def _memory_bytes() -> int:
    """Of this process alone: what is mapped from files is the kernel's, which takes it back where it must."""
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*sys.argv[1:])
