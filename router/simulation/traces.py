"""Recorded arrivals: Azure's LLM inference traces (CSV) and Mooncake's (JSON lines)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import msgspec

from router.simulation.world import Arrivals


class TraceError(Exception):
    """What is wrong with a trace, and what would be right."""


class _Line(msgspec.Struct):
    timestamp: float
    output_length: float


def read(path: Path) -> Arrivals:
    """When requests came, and how much each had to generate: both with a mean of 1. Raises TraceError."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            found = list(_azure(lines) if path.suffix == ".csv" else map(_mooncake, lines))
    except (OSError, UnicodeDecodeError, KeyError, ValueError, msgspec.DecodeError) as error:
        raise TraceError(
            f"{path} is no trace that can be read ({error!r}). A CSV file has TIMESTAMP and GeneratedTokens; "
            "all others are JSON lines with timestamp and output_length."
        ) from error
    gaps = [after - before for (before, _), (after, _) in pairwise(found)]
    sizes = [size for _, size in found[1:]]
    if sum(gaps, 0.0) <= 0 or sum(sizes) <= 0 or min(gaps) < 0:
        raise TraceError(f"{path} holds no requests one after the other. Sort them by time.")
    return Arrivals(_scaled(gaps), _scaled(sizes))


def _azure(lines: Iterator[str]) -> Iterator[tuple[float, float]]:
    for row in csv.DictReader(lines):
        at = datetime.fromisoformat(row["TIMESTAMP"][:26])
        yield at.timestamp(), float(row["GeneratedTokens"])


def _mooncake(line: str) -> tuple[float, float]:
    told = msgspec.json.decode(line, type=_Line)
    return told.timestamp, told.output_length


def _scaled(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value / mean for value in values]
