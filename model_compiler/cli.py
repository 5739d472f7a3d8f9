"""`foothill compile`: from a recipe, from an ONNX file, the demo's bundles, or an engine from a bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
import typer
from typer.core import TyperGroup

from contracts.boards import BOARDS
from contracts.engines import Hardware, Kind
from contracts.errors import FoothillError
from contracts.manifest import DETECTORS, PostprocessKind
from model_compiler.errors import CompileError
from model_compiler.label_lists import LISTS
from model_compiler.progress import Progress, Step

if TYPE_CHECKING:
    from model_compiler.from_onnx import OnnxRequest
    from model_compiler.pack import Packed
    from runtime.serving.engines.tensorrt_build import BuiltFile

_DEFAULT = "model"
_STOPPED = 130


class _Group(TyperGroup):
    """`foothill compile recipe.toml` and `foothill compile --onnx FILE` need no command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_Group, help="Compile models into bundles.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Kept = Annotated[Path | None, typer.Option(help="Where stages are kept between runs. [default: OUT/stages]")]
Head = Annotated[
    str,
    typer.Option(help=f"With --onnx: it is a detector with this head: {', '.join(DETECTORS)}; or a TOML file of it."),
]
Answers = Annotated[
    str, typer.Option(help=f"With --onnx: {', '.join(get_args(PostprocessKind))}. [default: from FILE]")
]


@app.callback()
def compile_models() -> None:
    """Compile models into bundles: foothill compile recipe.toml, or foothill compile --onnx model.onnx."""


@app.command(_DEFAULT)
def model(
    context: typer.Context,
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (TOML); docs/compile.md explains its keys.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="An ONNX file to compile, instead of a recipe.")] = None,
    name: Annotated[str, typer.Option(help="With --onnx: the bundle's name.")] = "",
    version: Annotated[str, typer.Option(help="With --onnx: the bundle's version, such as 1.0.0.")] = "",
    target: Annotated[list[str] | None, typer.Option(help=f"With --onnx: {', '.join(BOARDS)}; repeat.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="With --onnx: a folder of pictures, for int8, or for --cloud.")
    ] = None,
    logical: Annotated[str, typer.Option("--model", help="With --onnx: the logical model. [default: NAME]")] = "",
    kind: Answers = "",
    head: Head = "",
    golden: Annotated[
        Path | None, typer.Option(help="With --head: pictures for the golden test. [default: made ones]")
    ] = None,
    cloud: Annotated[
        Path | None, typer.Option(help="With --head: a cloud bundle's directory; fits a confidence rule against it.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="With --cloud: the share that may be kept and differ. [default: 0.03]")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="With --cloud: at a confidence of 1 less this. [default: 0.05]")
    ] = None,
    max_escalation: Annotated[
        float | None, typer.Option(help="With --cloud: the share that may escalate for it. [default: 1]")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help=f"With --onnx: a text file, one label a line; or {', '.join(LISTS)}.")
    ] = None,
    colour: Annotated[str, typer.Option(help="With --onnx: rgb, bgr or grey.")] = "rgb",
    scale: Annotated[float, typer.Option(help="With --onnx: what pixels 0..255 are multiplied by.")] = 1 / 255,
    mean: Annotated[str, typer.Option(help="With --onnx: of scaled pixels, per channel: 0.48,0.46,0.41")] = "0",
    std: Annotated[str, typer.Option(help="With --onnx: of scaled pixels, per channel.")] = "1",
    size: Annotated[str, typer.Option(help="With --onnx: WIDTHxHEIGHT, where the file leaves them open.")] = "",
    resize: Annotated[str, typer.Option(help="With --onnx: stretch, letterbox or crop.")] = "stretch",
    max_drop: Annotated[float | None, typer.Option(help="With --onnx: points that int8 may lose. [default: 1]")] = None,
    out: Annotated[Path, typer.Option(help="Directory for the bundles, made if missing.")] = Path("bundles"),
    stages: Kept = None,
    json: Json = False,
) -> None:
    """Compile a recipe, or an ONNX file. What was compiled before from the same inputs is not compiled again.

    Exit codes: 0 done, 1 refused, or a promise is not kept (the bundle is written all the same), 130 after Ctrl-C.
    """
    with _told():
        kept = stages or out / "stages"
        if recipe is not None and onnx is None:
            _refuse_more(context)
            _finish(out, json, lambda progress: _compile_recipe(recipe, out, kept, progress))
        elif onnx is not None and recipe is None:
            from model_compiler.onnx_options import OnnxOptions, request_of

            named = (onnx, name, version, target or (), logical, calibration, kind, labels)
            seen = (colour, scale, mean, std, size, resize)
            promised = (cloud, epsilon, delta, max_escalation)
            request = request_of(OnnxOptions(*named, *seen, max_drop, head, golden, *promised))
            _finish(out, json, lambda progress: _compile_onnx(request, out, kept, progress))
        else:
            raise CompileError("give a recipe (TOML), or --onnx FILE: one of the two.")


def _refuse_more(context: typer.Context) -> None:
    """A recipe says it all: an option beside it that changed nothing would mislead."""
    more = [name for name in context.params if name not in _BESIDE_A_RECIPE and _given(context, name)]
    if more:
        option = "--model" if more[0] == "logical" else f"--{more[0].replace('_', '-')}"
        raise CompileError(f"{option} goes with --onnx. A recipe has its own keys: docs/compile.md.")


def _given(context: typer.Context, name: str) -> bool:
    return str(getattr(context.get_parameter_source(name), "name", "")) == "COMMANDLINE"


_BESIDE_A_RECIPE = ("recipe", "onnx", "out", "stages", "json")


@app.command()
def digits(
    out: Annotated[Path, typer.Option(help="Directory for the three bundles, made if missing.")],
    quick: Annotated[bool, typer.Option(help="Train for seconds only: for tests, less accurate.")] = False,
    json: Json = False,
) -> None:
    """Compile the demo: digits-cloud@1, digits-edge@1, and digits-edge@2, which only the field unmasks."""
    with _told():
        _finish(out, json, lambda progress: _compile_digits(out, quick, progress))


@app.command()
def engine(
    bundle: Annotated[Path, typer.Argument(help="A packed bundle's directory.")],
    out: Annotated[Path, typer.Option(help="Directory for engine, record.json, timings and log.txt.")] = Path("engine"),
    target: Annotated[str, typer.Option(help="Whose artifact to build from. [default: this machine's]")] = "",
    kind: Annotated[str, typer.Option(help=f"{' or '.join(get_args(Kind))}.")] = "tensorrt",
    hardware: Annotated[str, typer.Option(help=f"Other GPUs it is for: {', '.join(get_args(Hardware))}.")] = "none",
    version_compatible: Annotated[bool, typer.Option(help="For later versions of TensorRT too.")] = False,
    weight_stripped: Annotated[bool, typer.Option(help="Without weights; the bundle puts them back.")] = False,
    dla_core: Annotated[int | None, typer.Option(help="Layers go to this accelerator of a Jetson.", min=0)] = None,
    capability: Annotated[list[int] | None, typer.Option(help="With tensorrt-rtx: such as 86 or 89; repeat.")] = None,
    workspace_mib: Annotated[int, typer.Option(help="Scratch memory of one tactic.", min=1, max=1 << 20)] = 1024,
    timings: Annotated[Path | None, typer.Option(help="The timings of an earlier build on this machine.")] = None,
    json: Json = False,
) -> None:
    """Build a TensorRT engine for this machine's kind of GPU. Nodes build their own; docs/engines.md."""
    asked = {
        "kind": kind,
        "target": target,
        "workspace_bytes": workspace_mib << 20,
        "hardware": hardware,
        "version_compatible": version_compatible,
        "weight_stripped": weight_stripped,
        "dla_core": dla_core,
        "compute_capabilities": tuple(capability or ()),
    }
    with _told():
        from model_compiler.engines import build_for, engine_target

        _show_engine(build_for(bundle, engine_target(asked), out, timings=timings), json=json)


def show(bundles: Sequence[Packed], *, json: bool) -> None:
    """Writes what was compiled to stdout, for programs or for people, and what is wrong with it to stderr.

    Raises typer.Exit where a promise is not kept.
    """
    from model_compiler.summary import print_table, summary_of

    summaries = [summary_of(packed) for packed in bundles]
    if json:
        sys.stdout.write(msgspec.json.encode(summaries).decode() + "\n")
    else:
        print_table(summaries)
    warned = [f"warning: {each.bundle}: {line}" for each in summaries for line in each.warnings]
    broken = [f"{each.bundle}: {line}" for each in summaries for line in each.broken]
    for line in (*warned, *broken):
        typer.echo(f"foothill compile: {line}", err=True)
    if broken:
        raise typer.Exit(1)


def _show_engine(built: BuiltFile, *, json: bool) -> None:
    if json:
        told = {"engine": str(built.engine), "record": built.record, "took_s": built.took_s, "notes": built.notes}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return
    for note in built.notes:
        typer.echo(f"foothill compile: {note}", err=True)
    typer.echo(f"{built.engine}: {built.record.bytes:,} bytes, {built.took_s:.0f} s, {built.record.engine}")


def _finish(out: Path, json: bool, compile_: Callable[[Progress], tuple[Packed, ...]]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)  # before the training, not after it
    except OSError as error:
        raise CompileError(
            f"--out {out} is no directory and cannot be made ({error.strerror}). Name another."
        ) from error
    show(_watched(json, compile_), json=json)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (CompileError, FoothillError) as error:
        typer.echo(f"foothill compile: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo(
            "foothill compile: stopped. Finished stages are kept; the same command goes on from there.", err=True
        )
        raise typer.Exit(_STOPPED) from error


# What follows imports inside: torch and scikit-learn are heavy, and come with the `compiler` extra only.


def _compile_recipe(recipe: Path, out: Path, kept: Path, progress: Progress) -> tuple[Packed, ...]:
    from model_compiler.pipeline import compile_recipe
    from model_compiler.stages import Stages

    return compile_recipe(recipe, out, stages=Stages(kept), progress=progress)


def _compile_onnx(request: OnnxRequest, out: Path, kept: Path, progress: Progress) -> tuple[Packed, ...]:
    from model_compiler.from_onnx import missing, onnx_plan
    from model_compiler.pipeline import compile_bundle
    from model_compiler.stages import Stages

    if request.head is not None:
        from model_compiler.detectors.plan import detector_plan

        plan, told = detector_plan(request, request.head, kept)
    else:
        plan = onnx_plan(request, kept, progress=progress)
        told = missing(request, plan)
    packed = compile_bundle(plan, out / plan.reference, stages=Stages(kept), progress=progress)
    for what in told:
        typer.echo(what, err=True)
    return (packed,)


def _compile_digits(out: Path, quick: bool, progress: Progress) -> tuple[Packed, ...]:
    from model_compiler.digits.recipe import FULL, QUICK, compile_digits

    bundles = compile_digits(out, profile=QUICK if quick else FULL, progress=progress)
    return bundles.cloud, bundles.edge, bundles.bad


def _watched(quiet: bool, compile_: Callable[[Progress], tuple[Packed, ...]]) -> tuple[Packed, ...]:
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
