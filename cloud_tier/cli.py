"""`foothill cloud`: run the cloud tier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.links.http.exposure import INSECURE

app = typer.Typer(help="The cloud tier: serves the big models that edge nodes escalate to.", no_args_is_help=True)


@app.callback()
def cloud() -> None:
    """Keeps `run` a subcommand while it is the only one."""


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; see docs/config.md. Without it: the defaults")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help=INSECURE)] = False,
) -> None:
    """Run the cloud tier until Ctrl-C."""
    from cloud_tier.__main__ import main

    main(str(config) if config else None, insecure=insecure)
