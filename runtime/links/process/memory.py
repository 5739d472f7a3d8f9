"""What the C library does with memory that a server has freed: keep it, for the next body is as large as this one."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

KEPT_BYTES = 32 << 20
LARGEST_KEPT_BYTES = 8 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TUNED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed(environment: Mapping[str, str] = os.environ) -> bool:
    """Keeps up to 32 MiB of freed memory in this process, in pieces of up to 8 MiB. Whether that could be set.

    By default glibc gives pieces of a hundred kilobytes back to the kernel as soon as they are free, and gets them
    again page by page: 300 page faults for a body of 600 KB, two thirds of the CPU time of reading it. Larger pieces,
    such as a model's weights, still go back at once. Does nothing where glibc is tuned from outside, or is not there.
    See mallopt(3).
    """
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None or any(name in environment for name in _TUNED):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))


def give_back() -> None:
    """Hands freed memory back to the kernel, whatever is kept otherwise: after work that is not done again soon.

    Blocks for some milliseconds. See malloc_trim(3).
    """
    trim = _of_the_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_the_c_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
