"""`foothill compile`: recipes from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from contracts.errors import FoothillError
from contracts.manifest import Measurements
from model_compiler.errors import CompileError
from model_compiler.progress import Step

if TYPE_CHECKING:
    from model_compiler.digits.recipe import DigitsBundles
    from model_compiler.pack import Packed

app = typer.Typer(help="Compile models into bundles.", no_args_is_help=True)


class Summary(msgspec.Struct, frozen=True):
    """One bundle of `--json`."""

    bundle: str
    digest: str
    directory: str
    measurements: Measurements


@app.callback()
def compile_models() -> None:
    """Compile models into bundles."""


@app.command()
def digits(
    out: Annotated[Path, typer.Option(help="Directory for the three bundles, made if missing.")],
    quick: Annotated[bool, typer.Option(help="Train for seconds only: for tests, less accurate.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Compile the demo: digits-cloud@1, digits-edge@1, and digits-edge@2, which only the field unmasks."""
    try:
        _make_directory(out)
        bundles = _compile(out, quick=quick, quiet=json)
        show(bundles, json=json)
    except (CompileError, FoothillError) as error:
        typer.echo(f"foothill compile: {error}", err=True)
        raise typer.Exit(1) from error


def show(bundles: DigitsBundles, *, json: bool) -> None:
    """Writes what was compiled to stdout, for programs or for people."""
    summaries = [_summary(packed) for packed in (bundles.cloud, bundles.edge, bundles.bad)]
    if json:
        sys.stdout.write(msgspec.json.encode(summaries).decode() + "\n")
    else:
        _print_table(summaries)


def _make_directory(out: Path) -> None:
    """Before the training, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(
            f"--out {out} is no directory and cannot be made ({error.strerror}). Name another."
        ) from error


def _compile(out: Path, *, quick: bool, quiet: bool) -> DigitsBundles:
    """Imported here: torch and scikit-learn are heavy, and come with the `compiler` extra only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from model_compiler.digits.recipe import FULL, QUICK, compile_digits

    columns = TextColumn("{task.fields[bundle]:<15} {task.description:<10}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def show(step: Step) -> None:
            key = step.bundle, step.stage
            if key not in tasks:
                tasks[key] = bars.add_task(step.stage, total=1.0, bundle=step.bundle)
            bars.update(tasks[key], completed=step.done)

        return compile_digits(out, profile=QUICK if quick else FULL, progress=show)


def _summary(packed: Packed) -> Summary:
    from model_compiler.pack import read_measurements

    return Summary(packed.manifest.reference, packed.digest, str(packed.directory), read_measurements(packed))


def _print_table(summaries: list[Summary]) -> None:
    from rich.console import Console
    from rich.table import Table

    numbers = ("accuracy", "agrees", "escalates", "bytes", "ms")
    table = Table("bundle", "artifact", box=None, pad_edge=False, collapse_padding=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    for summary in summaries:
        for name, measured in summary.measurements.artifacts.items():
            shares = [measured.agreement, measured.escalation]
            table.add_row(
                summary.bundle,
                name,
                f"{measured.accuracy:.1%} of {measured.samples}",
                *("" if share is None else f"{share:.1%}" for share in shares),
                f"{measured.bytes:,}",
                f"{measured.latency_ms:.3f}",
            )
    Console().print(table)
