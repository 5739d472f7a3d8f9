"""`foothill compile`: from a recipe, from an ONNX file, or the demo's bundles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from contracts.boards import BOARDS
from contracts.errors import FoothillError
from contracts.manifest import Measurements
from model_compiler.errors import CompileError
from model_compiler.progress import Progress, Step

if TYPE_CHECKING:
    from model_compiler.from_onnx import OnnxRequest, Pictures
    from model_compiler.pack import Packed

_DEFAULT = "model"


class _Group(TyperGroup):
    """`foothill compile recipe.toml` and `foothill compile --onnx FILE` need no command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Group, help="Compile models into bundles.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Kept = Annotated[Path | None, typer.Option(help="Where stages are kept between runs. [default: OUT/stages]")]


class Summary(msgspec.Struct, frozen=True):
    """One bundle of `--json`."""

    bundle: str
    digest: str
    directory: str
    measurements: Measurements
    report: str = ""


@app.callback()
def compile_models() -> None:
    """Compile models into bundles: foothill compile recipe.toml, or foothill compile --onnx model.onnx."""


@app.command(_DEFAULT)
def model(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML); docs/compile.md explains its keys.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="An ONNX file to compile, instead of a recipe.")] = None,
    name: Annotated[str, typer.Option(help="With --onnx: the bundle's name.")] = "",
    version: Annotated[str, typer.Option(help="With --onnx: the bundle's version, such as 1.0.0.")] = "",
    target: Annotated[list[str] | None, typer.Option(help=f"With --onnx: {', '.join(BOARDS)}; repeat.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="With --onnx: a folder of pictures, for int8.")] = None,
    logical: Annotated[str, typer.Option("--model", help="With --onnx: the logical model. [default: NAME]")] = "",
    labels: Annotated[Path | None, typer.Option(help="With --onnx: a text file, one label a line.")] = None,
    colour: Annotated[str, typer.Option(help="With --onnx: rgb, bgr or grey.")] = "rgb",
    scale: Annotated[float, typer.Option(help="With --onnx: what pixels 0..255 are multiplied by.")] = 1 / 255,
    mean: Annotated[str, typer.Option(help="With --onnx: of scaled pixels, per channel: 0.48,0.46,0.41")] = "",
    std: Annotated[str, typer.Option(help="With --onnx: of scaled pixels, per channel.")] = "",
    size: Annotated[str, typer.Option(help="With --onnx: WIDTHxHEIGHT, where the file leaves them open.")] = "",
    resize: Annotated[str, typer.Option(help="With --onnx: stretch, letterbox or crop.")] = "stretch",
    max_drop: Annotated[float, typer.Option(help="With --onnx: points that int8 may lose.", min=0, max=100)] = 1.0,
    out: Annotated[Path, typer.Option(help="Directory for the bundles, made if missing.")] = Path("bundles"),
    stages: Kept = None,
    json: Json = False,
) -> None:
    """Compile a recipe, or an ONNX file. What was compiled before from the same inputs is not compiled again."""
    with _told():
        pictures = _pictures(colour, scale, mean, std, size, resize)
        kept = stages or out / "stages"
        _make_directory(out)
        if onnx is not None and recipe is None:
            request = _request(onnx, name, version, target, logical, calibration, labels, pictures, max_drop)
            bundles = _watch(json, lambda progress: _compile_onnx(request, out, kept, progress))
        elif recipe is not None and onnx is None:
            bundles = _watch(json, lambda progress: _compile_recipe(recipe, out, kept, progress))
        else:
            raise CompileError("give a recipe (TOML), or --onnx FILE: one of the two.")
        show(bundles, json=json)


@app.command()
def digits(
    out: Annotated[Path, typer.Option(help="Directory for the three bundles, made if missing.")],
    quick: Annotated[bool, typer.Option(help="Train for seconds only: for tests, less accurate.")] = False,
    json: Json = False,
) -> None:
    """Compile the demo: digits-cloud@1, digits-edge@1, and digits-edge@2, which only the field unmasks."""
    with _told():
        _make_directory(out)
        show(_watch(json, lambda progress: _compile_digits(out, quick, progress)), json=json)


def show(bundles: Sequence[Packed], *, json: bool) -> None:
    """Writes what was compiled to stdout, for programs or for people."""
    summaries = [_summary(packed) for packed in bundles]
    if json:
        sys.stdout.write(msgspec.json.encode(summaries).decode() + "\n")
    else:
        _print_table(summaries)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (CompileError, FoothillError) as error:
        typer.echo(f"foothill compile: {error}", err=True)
        raise typer.Exit(1) from error


def _make_directory(out: Path) -> None:
    """Before the training, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(
            f"--out {out} is no directory and cannot be made ({error.strerror}). Name another."
        ) from error


# What follows imports inside: torch and scikit-learn are heavy, and come with the `compiler` extra only.


def _compile_recipe(recipe: Path, out: Path, kept: Path, progress: Progress) -> tuple[Packed, ...]:
    from model_compiler.pipeline import compile_recipe
    from model_compiler.stages import Stages

    return compile_recipe(recipe, out, stages=Stages(kept), progress=progress)


def _compile_onnx(request: OnnxRequest, out: Path, kept: Path, progress: Progress) -> tuple[Packed, ...]:
    from model_compiler.from_onnx import missing, onnx_plan
    from model_compiler.pipeline import compile_bundle
    from model_compiler.stages import Stages

    plan = onnx_plan(request, kept)
    packed = compile_bundle(plan, out / plan.reference, stages=Stages(kept), progress=progress)
    for what in missing(request):
        typer.echo(what, err=True)
    return (packed,)


def _compile_digits(out: Path, quick: bool, progress: Progress) -> tuple[Packed, ...]:
    from model_compiler.digits.recipe import FULL, QUICK, compile_digits

    bundles = compile_digits(out, profile=QUICK if quick else FULL, progress=progress)
    return bundles.cloud, bundles.edge, bundles.bad


def _request(
    onnx: Path,
    name: str,
    version: str,
    targets: Sequence[str] | None,
    logical: str,
    calibration: Path | None,
    labels: Path | None,
    pictures: Pictures,
    max_drop: float,
) -> OnnxRequest:
    from contracts.manifest import is_name, is_version
    from model_compiler.from_onnx import OnnxRequest

    for option, value, good in (
        ("--name", name, is_name(name)),
        ("--version", version, is_version(version)),
        ("--model", logical or name, is_name(logical or name)),
    ):
        if not good:
            raise CompileError(
                f"{option} {value!r}: name the bundle by lower-case letters, digits and '-', such as detector, and its "
                "version by numbers with dots, such as 1.0.0."
            )
    for target in targets or []:
        if target not in BOARDS:
            raise CompileError(f"--target {target!r} is unknown. Use one of {', '.join(BOARDS)}.")
    if not targets:
        raise CompileError(f"--target is missing. Name one or more of {', '.join(BOARDS)}.")
    return OnnxRequest(
        onnx=onnx,
        name=name,
        version=version,
        targets=tuple(targets),
        model=logical,
        calibration=calibration,
        pictures=pictures,
        labels=_lines(labels) if labels is not None else (),
        max_drop_points=max_drop,
    )


def _pictures(colour: str, scale: float, mean: str, std: str, size: str, resize: str) -> Pictures:
    from model_compiler.from_onnx import Pictures

    for option, value, known in (
        ("--colour", colour, ("rgb", "bgr", "grey")),
        ("--resize", resize, ("stretch", "letterbox", "crop")),
    ):
        if value not in known:
            raise CompileError(f"{option} {value!r} is unknown. Use one of {', '.join(known)}.")
    given = Pictures(colour=colour, scale=scale, resize=resize, size=_size(size))
    return msgspec.structs.replace(
        given, mean=_numbers("--mean", mean) or given.mean, std=_numbers("--std", std) or given.std
    )


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise CompileError(f"{option} {text!r}: write numbers with commas, such as 0.485,0.456,0.406.") from error


def _size(text: str) -> tuple[int, int] | None:
    width, cross, height = text.partition("x")
    if not text:
        return None
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise CompileError(f"--size {text!r}: write WIDTHxHEIGHT in pixels, such as 224x224.")
    return int(width), int(height)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(f"--labels {path} cannot be read ({error}). Give a text file, one label a line.") from error


def _watch(quiet: bool, compile_: Callable[[Progress], tuple[Packed, ...]]) -> tuple[Packed, ...]:
    """A bar for every stage while it runs."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.fields[bundle]:<15} {task.description:<10}"), BarColumn(), TimeElapsedColumn()
    with Bars(*columns, console=Console(stderr=True), disable=quiet) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def heard(step: Step) -> None:
            key = step.bundle, step.stage
            if key not in tasks:
                tasks[key] = bars.add_task(step.stage, total=1.0, bundle=step.bundle)
            bars.update(tasks[key], completed=step.done)

        return compile_(heard)


def _summary(packed: Packed) -> Summary:
    from model_compiler.pack import read_measurements
    from model_compiler.pipeline import report_of

    page = report_of(packed.directory) / "report.html"
    told = str(page) if page.exists() else ""
    return Summary(packed.manifest.reference, packed.digest, str(packed.directory), read_measurements(packed), told)


def _print_table(summaries: list[Summary]) -> None:
    from rich.console import Console
    from rich.table import Table

    numbers = ("score", "agrees", "escalates", "bytes", "ms")
    table = Table("bundle", "artifact", box=None, pad_edge=False, collapse_padding=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    for summary in summaries:
        for name, measured in summary.measurements.artifacts.items():
            shares = [measured.agreement, measured.escalation]
            table.add_row(
                summary.bundle,
                name,
                "" if measured.accuracy is None else f"{measured.accuracy:.1%} of {measured.samples}",
                *("" if share is None else f"{share:.1%}" for share in shares),
                f"{measured.bytes:,}",
                "" if measured.latency_ms is None else f"{measured.latency_ms:.3f}",
            )
    console = Console()
    console.print(table)
    for metric in dict.fromkeys(summary.measurements.metric for summary in summaries):
        console.print(f"score: {metric}", style="dim")
    for summary in summaries:
        if summary.report:
            console.print(f"report: {summary.report}", style="dim", soft_wrap=True)
