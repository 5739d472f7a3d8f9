"""`foothill fleet audit …`: all that was done to the fleet, and proof of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.decoding import UNREADABLE
from fleet.audit_reader import AuditHead
from fleet.auditing.chain import START, BrokenChainError, Entry, Mark, read
from fleet.auditing.entries import Body
from fleet.auditing.told import moment, nodes_of, subject, told
from fleet.auditing.verification import Verdict, verify
from fleet.client import FleetClient
from fleet.terminal import DEFAULT_URL, AsJson, TokenFile, Url, client_of, fail, show
from fleet.terminal import told as failures_told

app = typer.Typer(help="What was done to the fleet, in a log that proves itself.", no_args_is_help=True)


@app.command("log")
def log(
    since: Annotated[int, typer.Option(min=0, help="Entries after this number.")] = 0,
    rollout: Annotated[str, typer.Option(help="Entries of this rollout alone.")] = "",
    node: Annotated[str, typer.Option(help="Entries that name this node alone.")] = "",
    last: Annotated[int, typer.Option(min=0, help="The last so many of them; 0: all.")] = 50,
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all, whole, a line of JSON each.")] = False,
) -> None:
    """Show what was done. With --json it is an export that `audit verify --file` reads."""
    with failures_told():
        entries = client_of(fleet, token_file).audit_log(since)
        wanted = (entry for entry in entries if _is_of(entry, rollout, node)) if rollout or node else entries
        if as_json:
            for entry in wanted:
                typer.echo(msgspec.json.encode(entry).decode())
            return
        shown = _last_of(wanted, last)
    show([], _picture(shown), as_json)


@app.command("verify")
def prove(
    file: Annotated[Path | None, typer.Option(help="An export of `audit log --json`, instead of the fleet.")] = None,
    note: Annotated[
        Path | None, typer.Option(help="Where the end of the log is noted; what was noted before must still be in it.")
    ] = None,
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Read the log from its first entry, and play every rollout again: does what the fleet holds follow from it?

    Ends with 0 when all of it holds, 1 when anything does not.
    """
    noted = _noted(note)
    with failures_told():
        verdict = verify(_exported(file), noted) if file else _of_fleet(client_of(fleet, token_file), noted)
    show(verdict, _proof(verdict, whole=file is None), as_json)
    if verdict.faults:
        raise typer.Exit(1)
    if note is not None:
        note.write_bytes(msgspec.json.encode(verdict.mark) + b"\n")


def _of_fleet(client: FleetClient, noted: Mark) -> Verdict:
    """What is written meanwhile comes after the end that is looked at."""
    head: AuditHead = client.audit_head()
    entries = itertools.takewhile(lambda entry: entry.seq <= head.mark.seq, client.audit_log())
    verdict = verify(entries, noted, head.holding)
    if not verdict.faults and verdict.mark != head.mark:
        told_end = f"the log ends with entry {verdict.mark.seq}, and the fleet says {head.mark.seq}"
        return msgspec.structs.replace(verdict, faults=(told_end,))
    return verdict


def _exported(path: Path) -> Iterator[Entry]:
    decoder = msgspec.json.Decoder(Entry)
    try:
        with path.open("rb") as lines:
            yield from (decoder.decode(line) for line in lines if line.strip())
    except OSError as error:
        fail(f"{path} cannot be read ({error.strerror}).", 2)
    except UNREADABLE as error:
        fail(f"{path} is no export of `foothill fleet audit log --json`: {error}.", 2)


def _noted(path: Path | None) -> Mark:
    if path is None or not path.exists():
        return START
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (OSError, *UNREADABLE) as error:
        fail(f"--note {path} holds no note of `audit verify`: {error}.", 2)


def _is_of(entry: Entry, rollout: str, node: str) -> bool:
    body = _body(entry)
    return (not rollout or subject(body) == rollout) and (not node or node in nodes_of(body))


def _last_of(entries: Iterable[Entry], last: int) -> list[Entry]:
    return list(deque(entries, maxlen=last or None))


def _body(entry: Entry) -> Body:
    try:
        return read(entry)
    except BrokenChainError as error:
        fail(f"{error}. Use the version of Foothill that wrote it, or a newer one.", 1)


def _picture(entries: list[Entry]) -> RenderableType:
    if not entries:
        return Text("Nothing was done yet.")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("entry", "time (UTC)", "kind", "of", "what"):
        table.add_column(column, overflow="fold", no_wrap=column in ("entry", "time (UTC)"))
    for entry in entries:
        body = _body(entry)
        table.add_row(str(entry.seq), moment(entry.at_s), str(body.__struct_config__.tag), subject(body), told(body))
    return table


def _proof(verdict: Verdict, *, whole: bool) -> RenderableType:
    steps = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("entry", "time (UTC)", "rollout", "came to", "because"):
        steps.add_column(column, overflow="fold")
    for step in verdict.steps:
        steps.add_row(
            str(step.seq), moment(step.at_s), step.rollout, f"{step.phase}, stage {step.stage}", step.reason or "-"
        )
    if verdict.faults:
        end: list[RenderableType] = [Text(f"NOT PROVEN: {fault}", style="bold red") for fault in verdict.faults]
    else:
        held = " What the fleet holds is what they lead to." if whole else ""
        end = [
            Text(
                f"{verdict.mark.seq} entries in an unbroken chain, {len(verdict.steps)} decisions derived again.{held}"
            ),
            Text(f"The last entry's hash is {verdict.mark.hash}: note it elsewhere (--note does)."),
        ]
    return Group(steps, Text(), *end) if verdict.steps else Group(*end)
