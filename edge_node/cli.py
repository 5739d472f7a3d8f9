"""`foothill edge`: join a fleet, and run the node."""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from contracts.errors import FoothillError
from runtime.links.http.exposure import INSECURE

app = typer.Typer(help="An edge node: serves models next to the cameras and the users.", no_args_is_help=True)


class Reach(str, enum.Enum):
    """Who can reach the node's URL: everybody, or only clients on its own site."""

    public = "public"
    site = "site"


@app.command()
def enrol(
    fleet: Annotated[str, typer.Option(help="URL of the fleet manager, such as http://fleet.example:8070")],
    token: Annotated[str, typer.Option(help="One-time token from `foothill fleet node enrol`")],
    url: Annotated[str, typer.Option(help="URL where clients will reach this node")],
    state: Annotated[Path, typer.Option(help="Directory of this node's state")] = Path("./state/edge"),
    reach: Annotated[Reach, typer.Option(help="Who can reach the URL")] = Reach.public,
    ca_file: Annotated[str, typer.Option(help="Authorities (PEM) to believe for an https fleet")] = "",
    cert_file: Annotated[str, typer.Option(help="Certificate chain (PEM) to show to an https fleet")] = "",
    key_file: Annotated[str, typer.Option(help="Its key (PEM)")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Join a fleet with a one-time token."""
    from edge_node.enrol import enrol as join
    from runtime.links.trust.tls import TlsConfig

    if bool(cert_file) != bool(key_file):
        _fail(FoothillError("bad_request", "--cert-file and --key-file go together: name both, or neither."), json)
    tls = TlsConfig(ca_file, cert_file, key_file)
    try:
        enrolment = asyncio.run(join(fleet, token, state, url, reach=reach.value, tls=tls))
    except FoothillError as error:
        _fail(error, json)
    told = {"node": enrolment.node, "region": enrolment.region, "fleet": enrolment.fleet_url, "state": str(state)}
    if json:
        typer.echo(msgspec.json.encode(told).decode())
    else:
        Console().print(
            f"Node [bold]{enrolment.node}[/] in {enrolment.region} has joined {enrolment.fleet_url}.\n"
            f"Start it with: foothill edge run   (state_dir = {str(state)!r} in its configuration)"
        )


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; see docs/config.md. Without it: the defaults")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help=INSECURE)] = False,
) -> None:
    """Run the node until Ctrl-C."""
    from edge_node.__main__ import main

    main(str(config) if config else None, insecure=insecure)


def _fail(error: FoothillError, json: bool) -> None:
    if json:
        body = {"code": error.code, "message": error.message, "source": error.source}
        typer.echo(msgspec.json.encode(body).decode(), err=True)
    else:
        source = f"{error.source}: " if error.source else ""
        typer.echo(f"error: {source}{error.message}", err=True)
    raise typer.Exit(1)
