"""`foothill fleet acceptance …`: what boards must have shown before models go to them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet.acceptance import AcceptanceView, Accepted, Demand, DemandRequest
from fleet.terminal import DEFAULT_URL, AsJson, TokenFile, Url, client_of, fail, show, told

app = typer.Typer(help="Reports of boards that a rollout waits for.", no_args_is_help=True)

_DAY_S = 86_400.0
_HEX = 64


@app.command("require")
def require(
    target: Annotated[str, typer.Argument(help="The target, such as jetson-orin-nano.")],
    key: Annotated[list[str], typer.Option(help="Whose reports count: a public key or its file. Repeat it.")],
    max_age_days: Annotated[float, typer.Option(min=0.01, help="For how long a report is good.")] = 90.0,
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Let no rollout begin on nodes of a target without a passed report of `foothill hil run`."""
    keys = tuple(_public(each) for each in key)
    try:
        request = msgspec.convert({"keys": keys, "max_age_s": max_age_days * _DAY_S}, DemandRequest)
    except msgspec.ValidationError as error:
        fail(f"{error}. Give each --key as 64 hex digits, or as the .pub file of `foothill hil key`.", 2)
    with told():
        demand = client_of(fleet, token_file).require_acceptance(target, request)
    show(demand, Text(f"Acceptance of {target} is demanded now, by {_keys(demand)}."), as_json)


@app.command("lift")
def lift(
    target: Annotated[str, typer.Argument(help="The target.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Demand nothing of a target any more."""
    with told():
        client_of(fleet, token_file).lift_acceptance(target)
    typer.echo(f"Acceptance of {target} is demanded no more.")


@app.command("submit")
def submit(
    report: Annotated[Path, typer.Argument(help="The JSON file of a signed report.")],
    fleet: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Hand in a report of a board."""
    try:
        data = report.read_bytes()
    except OSError as error:
        fail(f"{report} cannot be read ({error.strerror}).", 2)
    with told():
        accepted = client_of(fleet, token_file).submit_acceptance(data)
    show(accepted, Text(f"{accepted.node} is accepted as {accepted.target}, signed by key {accepted.key_id}."), as_json)


@app.command("list")
def list_all(fleet: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show what is demanded, and which reports there are."""
    with told():
        view = client_of(fleet, token_file).acceptance()
    show(view, _picture(view), as_json)


def _picture(view: AcceptanceView) -> RenderableType:
    if not view.demands and not view.reports:
        return Text("No acceptance is demanded: foothill fleet acceptance require TARGET --key PUBLIC")
    demands = _table("demanded of", "signed by", "good for")
    for demand in view.demands:
        demands.add_row(demand.target, _keys(demand), f"{demand.max_age_s / _DAY_S:g} days")
    reports = _table("report of", "target", "measured", "signed by", "suite", "report")
    for one in view.reports:
        reports.add_row(one.node, one.target, _moment(one), one.key_id, one.suite, one.id[:19])
    return Group(demands, Text(), reports)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _keys(demand: Demand) -> str:
    return ", ".join(sorted(demand.keys))


def _moment(one: Accepted) -> str:
    return datetime.fromtimestamp(one.at_s, timezone.utc).strftime("%Y-%m-%d %H:%M")


def _public(text: str) -> str:
    if len(text) == _HEX:
        return text
    try:
        return Path(text).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--key {text[:80]!r} is neither a public key of 64 hex digits nor a file with one: {error}", 2)
