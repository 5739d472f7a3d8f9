"""What the fleet's commands share: how they find the fleet manager, print, and fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console, RenderableType

from contracts.errors import FoothillError
from fleet.client import FleetClient

DEFAULT_URL = "http://127.0.0.1:8070"
DEFAULT_TOKEN_FILE = Path("state/fleet/admin.token")

Url = Annotated[str, typer.Option("--fleet", envvar="FOOTHILL_FLEET_URL", help="The fleet manager's URL.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the admin token. Default: $FOOTHILL_ADMIN_TOKEN, else the local state.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def client_of(url: str, token_file: Path | None) -> FleetClient:
    """The token: the file named, else the environment, else where a local fleet manager keeps it."""
    token = os.environ.get("FOOTHILL_ADMIN_TOKEN", "") if token_file is None else ""
    if not token:
        path = token_file or DEFAULT_TOKEN_FILE
        try:
            token = path.read_text().strip()
        except OSError as error:
            fail(
                f"{path}: {error.strerror}. Name the fleet manager's admin.token with --token-file, or set "
                f"FOOTHILL_ADMIN_TOKEN.",
                2,
            )
    return FleetClient(url, token)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Failures in one line: code 2 when the fleet manager cannot be reached, 1 when it says no."""
    try:
        yield
    except FoothillError as error:
        fail(error.message, 2 if error.code == "unavailable" else 1)


def show(body: Any, picture: RenderableType, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(body)).decode())
    else:
        Console(soft_wrap=True).print(picture)


def fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
