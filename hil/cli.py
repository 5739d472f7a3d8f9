"""`foothill hil`: the acceptance suite for a real board."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

app = typer.Typer(help="Acceptance of a live node on its own board.", no_args_is_help=True)


@app.callback()
def hil() -> None:
    """Keeps `run` a command of its own."""


@app.command()
def run(
    node: Annotated[str, typer.Option(help="URL of the node, such as http://board:8100")],
    admin_token: Annotated[
        Path | None, typer.Option(help="File with the node's admin token; without it golden parity is skipped")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests a model for its latency")] = 200,
    report: Annotated[Path | None, typer.Option(help="Write the report here as JSON")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Check a live node. Exit code 1 when a check failed, 2 when the command line is wrong."""
    from hil.report import show
    from hil.run import accept

    try:
        token = admin_token.read_text().strip() if admin_token is not None else ""
    except OSError as error:
        raise typer.BadParameter(f"{admin_token} cannot be read: {error.strerror}.") from error
    result = asyncio.run(accept(node, admin_token=token, requests=requests))
    data = msgspec.json.encode(result)
    if report is not None:
        report.write_bytes(msgspec.json.format(data, indent=2))
    if json:
        typer.echo(data.decode())
    else:
        show(result, Console())
    raise typer.Exit(1 if result.verdict == "failed" else 0)
