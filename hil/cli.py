"""`foothill hil …`: the acceptance suite for a real board, and its signed report."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from contracts.acceptance import Acceptance, Check
from contracts.errors import FoothillError
from runtime.links.bundles import acceptance_reports as reports
from runtime.links.process.settings import SettingsError
from runtime.links.trust.signatures import key_id

app = typer.Typer(help="Acceptance of a live node on its own board.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(
    board: Annotated[
        str, typer.Option(help="The board's name: its entry in the file of --boards, if there is one.")
    ] = "",
    node: Annotated[str, typer.Option(help="URL of the node, such as http://board:8100; before the entry's.")] = "",
    boards: Annotated[Path | None, typer.Option(help="File of the boards' entries. Default: boards.toml here.")] = None,
    admin_token: Annotated[Path | None, typer.Option(help="File with the node's admin token.")] = None,
    token: Annotated[Path | None, typer.Option(help="File with the token that callers of models show.")] = None,
    fleet: Annotated[str, typer.Option(help="URL of the fleet manager; the whole suite needs it.")] = "",
    fleet_token: Annotated[
        Path | None,
        typer.Option(help="File with its admin token. Default: $FOOTHILL_ADMIN_TOKEN, else the local state."),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests a model for its latency.")] = 200,
    step_s: Annotated[float, typer.Option(min=0.1, help="Seconds of each step of the curve.")] = 5.0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Most requests at once.")] = 32,
    soak_s: Annotated[float, typer.Option(min=0.5, help="Seconds of the soak.")] = 300.0,
    only: Annotated[str, typer.Option(help="Make these checks only, separated by commas.")] = "",
    skip: Annotated[str, typer.Option(help="Leave these checks out.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write the report here as JSON, and beside it as HTML.")] = None,
    key: Annotated[Path | None, typer.Option(help="Sign the report with this private key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a live node and put it back as it was found. 0: passed or partial, 1: failed, 2: used wrongly."""
    from hil.keys import read_private
    from hil.opening import Options, opened, skipped
    from hil.plan import Plan

    try:
        private = read_private(key) if key is not None else None
        plan = Plan(
            requests=requests,
            step_s=step_s,
            most_concurrency=concurrency,
            soak_s=soak_s,
            skip=skipped(only, skip),
        )
        what = opened(Options(board, boards, node, admin_token, token, fleet, fleet_token, plan))
        _check_writable(report)
    except SettingsError as error:
        _fail(str(error), 2)
    result = _watched(what, quiet=as_json)
    data = reports.seal(result, private)
    if report is not None:
        _write(report, data)
    if as_json:
        typer.echo(data.decode(), nl=False)
    if result.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(1 if result.verdict == "failed" else 0)


@app.command()
def verify(
    report: Annotated[Path, typer.Argument(help="The JSON file of a report.")],
    key: Annotated[list[str], typer.Option(help="A public key that is trusted: 64 hex digits, or a file. Repeat it.")],
    as_json: AsJson = False,
) -> None:
    """Check a report's signature. 0: signed by that key and not altered, 1: not so."""
    from hil.keys import read_public
    from hil.report import verdict_line

    try:
        publics = [read_public(each) for each in key]
        data = report.read_bytes()
    except SettingsError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{report} cannot be read ({error.strerror}).", 2)
    try:
        found = reports.verify(reports.read(data), {key_id(public): public for public in publics})
    except FoothillError as error:
        _fail(error.message, 1)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    console = Console(soft_wrap=True)
    console.print(f"Signed by key {key_id(found.signed_by)}, and not altered since.", highlight=False)
    console.print(
        f"{found.board or found.url} is {found.target or 'of a target not known'}.", highlight=False, markup=False
    )
    console.print(verdict_line(found))


@app.command("key")
def make_key(
    file: Annotated[Path, typer.Argument(help="The new file; its public half goes beside it as FILE.pub.")],
) -> None:
    """Make a key that signs reports, and print its public half."""
    from hil.keys import create

    try:
        typer.echo(create(file))
    except SettingsError as error:
        _fail(str(error), 2)


def _watched(what: object, *, quiet: bool) -> Acceptance:
    """Runs the suite: on a terminal with what it is at, elsewhere a line for each check."""
    from hil.opening import Opened, examine
    from hil.report import line_of, show

    assert isinstance(what, Opened)
    if quiet:
        return asyncio.run(examine(what, lambda line: None, lambda check: None))
    console = Console()

    def tell(check: Check) -> None:
        console.print(line_of(check), soft_wrap=not console.is_terminal)

    with console.status("asking the node") if console.is_terminal else nullcontext() as status:
        found = asyncio.run(examine(what, lambda line: status.update(Text(line)) if status else None, tell))
    show(found, console)
    return found


def _check_writable(report: Path | None) -> None:
    """Asked before minutes of work, whose result would have nowhere to go."""
    if report is None:
        return
    folder = report.absolute().parent
    if report.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SettingsError(
            f"--report {report} cannot be written: {folder} is no folder that takes files, or it is one."
        )
    if report.suffix == ".html":
        raise SettingsError(f"--report {report} is the JSON file; the page goes beside it as {report.stem}.html.")
    if report.exists() and not os.access(report, os.W_OK):
        raise SettingsError(f"--report {report} is there, and cannot be written.")


def _write(report: Path, data: bytes) -> None:
    from hil.page import page_of
    from runtime.links.process.durable import write_file

    try:
        write_file(report, data)
        write_file(report.with_suffix(".html"), page_of(data).encode())
    except OSError as error:
        typer.echo(data.decode(), nl=False)
        _fail(f"{report} cannot be written ({error.strerror}); the report is above.", 1)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
