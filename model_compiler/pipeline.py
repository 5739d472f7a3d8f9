"""One compilation as a story: from a plan and its samples to a packed, measured bundle and its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from model_compiler.begin import begin_models
from model_compiler.build import build
from model_compiler.certify import certify
from model_compiler.compilation import Compilation
from model_compiler.describe import describe
from model_compiler.errors import CompileError
from model_compiler.learn import learn
from model_compiler.measure import measure, measurements_of
from model_compiler.pack import Packed, check_place, pack
from model_compiler.plan import Plan
from model_compiler.plan_check import check_parts, check_samples
from model_compiler.plans import cloud_plan, edge_plan, given_cloud
from model_compiler.progress import Progress, silent
from model_compiler.recipe_file import RecipeError, RecipeFile
from model_compiler.reporting.report import write_report
from model_compiler.stages import Stages
from model_compiler.tell import tell

REPORT_SUFFIX = ".report"


def compile_bundle(
    plan: Plan,
    directory: Path,
    *,
    stages: Stages | None = None,
    progress: Progress = silent,
    report: bool = True,
) -> Packed:
    """Compiles `plan` into `directory`, and its report into `directory`.report. The same plan gives the same bytes,
    measurements and report apart.

    `stages` keeps what each stage made: one whose inputs did not change is not run again. Raises CompileError when a
    stage refuses what it was given or what it made.
    """
    check_place(directory)
    check_parts(plan)
    check_samples(plan, certified=plan.cloud is not None)
    with _kept(stages) as room:
        work = Compilation(plan, room, progress)
        learned = learn(work)
        built = build(work, learned)
        certified = certify(work, built)
        rules = {name: found.fitted.rule for name, found in certified.items()}
        manifest, contents = describe(plan, built.order, built.files, rules)
        found = measure(work, built, learned, certified)
        packed = pack(directory, manifest, contents, measurements_of(plan, manifest, found))
        if report:
            write_report(tell(work, packed, learned, built, certified, found), report_of(directory))
    return packed


def compile_recipe(recipe: Path, out: Path, *, stages: Stages, progress: Progress = silent) -> tuple[Packed, ...]:
    """Compiles what a recipe names into `out`/NAME@VERSION: the teacher as a cloud bundle where it says so, then the
    student. Raises RecipeError with the line, or CompileError where no line is at fault."""
    file = RecipeFile.open(recipe)
    try:
        return _compile(file, out, stages, progress)
    except CompileError as error:
        if isinstance(error, RecipeError) or not error.key:
            raise
        raise file.refuse(error.key, str(error)) from error


def _compile(file: RecipeFile, out: Path, stages: Stages, progress: Progress) -> tuple[Packed, ...]:
    plan = edge_plan(file, stages.directory, given_cloud(file), progress=progress)
    packed = []
    if (cloud := cloud_plan(file, plan)) is not None:
        _foresee(plan, stages.directory)
        packed.append(compile_bundle(cloud, out / cloud.reference, stages=stages, progress=progress))
        plan = msgspec.structs.replace(plan, cloud=packed[0])
    packed.append(compile_bundle(plan, out / plan.reference, stages=stages, progress=progress))
    return tuple(packed)


def _foresee(plan: Plan, directory: Path) -> None:
    """Tells what is wrong with the edge bundle before the cloud bundle is trained. Raises CompileError."""
    check_parts(plan)
    check_samples(plan, certified=True)
    begin_models(Compilation(plan, Stages(directory), silent))


def report_of(directory: Path) -> Path:
    """Where the report of the bundle in `directory` lies: beside it, not in it."""
    return directory.with_name(directory.name + REPORT_SUFFIX)


@contextmanager
def _kept(stages: Stages | None) -> Iterator[Stages]:
    """The user's own stages, or some that end with the compilation."""
    if stages is not None:
        yield stages
        return
    with TemporaryDirectory() as directory:
        yield Stages(Path(directory))
