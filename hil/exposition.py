"""What a node's `/metrics` says of its process, read from Prometheus's text format."""

from __future__ import annotations

import math
import re

import msgspec

# https://prometheus.io/docs/instrumenting/exposition_formats/ : name, value, and perhaps a time. The figures wanted
# here have no labels.
_LINE = re.compile(
    rb"^(process_resident_memory_bytes|process_open_fds|foothill_threads) (\S{1,40})(?: -?[0-9]+)?$", re.M
)


class Vitals(msgspec.Struct, frozen=True):
    """One look at a process; None for what it does not tell."""

    resident_bytes: float | None = None
    open_files: float | None = None
    threads: float | None = None


def vitals_of(text: bytes) -> Vitals:
    """Lines out of form are left alone."""
    found = {name.decode(): _number(value) for name, value in _LINE.findall(text)}
    return Vitals(
        found.get("process_resident_memory_bytes"), found.get("process_open_fds"), found.get("foothill_threads")
    )


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
