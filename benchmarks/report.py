"""What a benchmark hands back: rows of named figures, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.machine import Machine, Meanwhile
from benchmarks.rounds import Profile, Ratio, shown


class Report(msgspec.Struct, frozen=True):
    """One benchmark. All rows are of one kind, whose field names are the columns; `notes` say how to read them."""

    name: str
    rows: Sequence[msgspec.Struct]
    notes: Sequence[str]
    meanwhile: Meanwhile


class Reports(msgspec.Struct, frozen=True):
    """One run of `python -m benchmarks`."""

    machine: Machine
    profile: Profile
    date: str
    benchmarks: Mapping[str, Report]


def table(rows: Sequence[msgspec.Struct]) -> str:
    """A Markdown table."""
    heads = [field.name.replace("_", " ") for field in msgspec.structs.fields(rows[0])]
    lines = [heads, ["---"] * len(heads), *([_shown(value) for value in msgspec.structs.astuple(row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(report: Report) -> str:
    others, stolen = report.meanwhile.other_processes, report.meanwhile.stolen
    busy = f"Meanwhile other processes took {others:.2f} cores, the hypervisor {stolen:.2f}."
    notes = (f"- {note}" for note in [*report.notes, busy])
    return "\n".join([f"## {report.name}", "", table(report.rows), "", *notes])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Ratio | str | int):
        return str(value)
    return shown(value)
