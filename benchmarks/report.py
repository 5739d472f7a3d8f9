"""What a benchmark hands back: rows of named figures, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.machine import Machine, Meanwhile
from benchmarks.rounds import Profile, Ratio, Rounds, shown


class Report(msgspec.Struct, frozen=True):
    """One benchmark. All rows are of one kind, whose field names are the columns; `notes` say how to read them.

    `meanwhile` is the mean of the rounds that count; `repeated` rounds were measured again since others were busy.
    """

    name: str
    rows: Sequence[msgspec.Struct]
    notes: Sequence[str]
    meanwhile: Meanwhile
    repeated: int


class Reports(msgspec.Struct, frozen=True):
    """One run of `python -m benchmarks`."""

    machine: Machine
    profile: Profile
    date: str
    benchmarks: Mapping[str, Report]


def report(name: str, rows: Sequence[msgspec.Struct], notes: Sequence[str], rounds: Sequence[Rounds[Any]]) -> Report:
    """`rounds` of all parts of the benchmark."""
    seen = [meanwhile for part in rounds for meanwhile in part.meanwhile]
    mean = Meanwhile(
        sum(one.other_processes for one in seen) / len(seen),
        sum(one.stolen for one in seen) / len(seen),
    )
    return Report(name, rows, notes, mean, sum(part.repeated for part in rounds))


def table(rows: Sequence[msgspec.Struct]) -> str:
    """A Markdown table."""
    heads = [field.name.replace("_", " ") for field in msgspec.structs.fields(rows[0])]
    lines = [heads, ["---"] * len(heads), *([_shown(value) for value in msgspec.structs.astuple(row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(report: Report) -> str:
    others, stolen = report.meanwhile.other_processes, report.meanwhile.stolen
    busy = (
        f"In the rounds that count other processes took {others:.2f} cores and the hypervisor {stolen:.2f}; "
        f"{report.repeated} rounds were measured again because others were busy."
    )
    notes = (f"- {note}" for note in [*report.notes, busy])
    return "\n".join([f"## {report.name}", "", table(report.rows), "", *notes])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Ratio | str | int):
        return str(value)
    return shown(value)
