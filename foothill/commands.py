"""The commands of `foothill` itself, and the rooms' commands mounted beside them, each loaded only when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from foothill import __version__
from foothill.rooms import ROOMS

_FEWEST_REQUESTS = 2000

State = Annotated[Path, typer.Option("--state", help="Directory for everything that is kept.", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quick = Annotated[bool, typer.Option("--quick", help="Train for seconds only: a rehearsal, less accurate.")]


def build(command: str) -> typer.Typer:
    """The application. Of the rooms only the one named `command` is imported; the others are names with a help line."""
    app = typer.Typer(
        name="foothill",
        help="Edge-cloud hybrid inference: compile, serve, route, escalate, roll out.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(foothill)
    app.command()(up)
    app.command()(demo)
    app.command("demo-camera")(demo_camera)
    app.command()(doctor)
    for name, room in ROOMS.items():
        if importlib.util.find_spec(room.module) is None:
            continue
        if name == command:
            app.add_typer(importlib.import_module(room.module).app, name=name, help=room.help)
        else:
            app.command(name, help=room.help)(_not_loaded)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foothill {__version__}")
        raise typer.Exit


def _can_be_written(file: Path | None) -> Path | None:
    """Asked before minutes of work, whose result would have nowhere to go."""
    if file is None:
        return None
    folder = file.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"{folder} is no folder that can be written. Make it, or name another.")
    if file.is_dir():
        raise typer.BadParameter(f"{file} is a folder. Name a file in it.")
    return file


def foothill(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Takes the options that stand before a command."""


def up(
    state: State = Path("state/up"),
    ready_file: Annotated[
        Path | None,
        typer.Option(
            callback=_can_be_written,
            help="Written as JSON with every URL once everything answers; removed at the end.",
        ),
    ] = None,
    wan: Annotated[bool, typer.Option("--wan/--no-wan", help="Emulate the distances between the parts.")] = False,
    quick: Quick = False,
    json: Json = False,
) -> None:
    """Start every part on this machine, with the digits models rolled out, until Ctrl-C."""
    from foothill.up import UpOptions
    from foothill.up import up as run

    with _failing_plainly("up"):
        run(UpOptions(state=state, ready_file=ready_file, distances=wan, quick=quick, json=json))


def demo(
    state: Annotated[
        Path | None,
        typer.Option("--state", help="A new or empty directory to keep; without it, one that is removed at the end."),
    ] = None,
    report: Annotated[Path | None, typer.Option(callback=_can_be_written, help="Write the report as JSON too.")] = None,
    requests: Annotated[int, typer.Option(min=_FEWEST_REQUESTS, help="Requests of each pass.")] = _FEWEST_REQUESTS,
    wan: Annotated[bool, typer.Option("--wan/--no-wan", help="Emulate the distances between places.")] = True,
    quick: Quick = False,
) -> None:
    """Compile, start, roll out, route, roll out a bad version, and report: the whole story in a few minutes."""
    from foothill.demo.story import DemoOptions
    from foothill.demo.story import demo as run

    with _failing_plainly("demo"):
        run(DemoOptions(state=state, report=report, requests=requests, distances=wan, quick=quick))


def demo_camera(
    packages: Annotated[Path, typer.Option(help="Folder with the wheels that `make demo-camera` fetches.")] = Path(
        ".venv/camera-demo"
    ),
    seconds: Annotated[float, typer.Option(min=5, max=86_400, help="How long to watch.")] = 90.0,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the page; 0: any that is free.")] = 0,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="A new or empty directory to keep; without it, one that is removed at the end."),
    ] = None,
) -> None:
    """A street over RTSP into a box, on this machine: what it sees, and what leaves it."""
    from foothill.demo.camera.story import CameraDemoOptions
    from foothill.demo.camera.story import demo_camera as run

    with _failing_plainly("demo-camera"):
        run(CameraDemoOptions(packages=packages, seconds=seconds, port=port, state=state))


def doctor(json: Json = False) -> None:
    """Say what is installed, what is missing for which role, and what to type."""
    from foothill.doctor import describe, diagnose, examine

    diagnosis = diagnose(examine())
    typer.echo(msgspec.json.encode(diagnosis).decode() if json else describe(diagnosis))
    raise typer.Exit(0 if diagnosis.healthy else 1)


@contextmanager
def _failing_plainly(command: str) -> Iterator[None]:
    """What can go wrong with a reason is told in words, without a traceback; exit code 1."""
    from contracts.errors import FoothillError
    from foothill.demo.places import GeoDatabaseError
    from foothill.processes import ProcessError
    from foothill.site import MachineError
    from model_compiler.errors import CompileError
    from runtime.links.process.settings import SettingsError

    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing is left running.", err=True)
        raise typer.Exit(130) from None
    except (CompileError, FoothillError, GeoDatabaseError, MachineError, ProcessError, SettingsError, OSError) as error:
        typer.echo(f"foothill {command}: {error}", err=True)
        raise typer.Exit(1) from error


def _not_loaded() -> None:
    """Stands in for a room that this command line does not name."""
    raise typer.BadParameter("Write the command's name before its options.")
