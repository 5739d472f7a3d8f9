"""Whether a plan has the samples that its stages need, each for one use: told by the part's name before any runs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from model_compiler.data.contents import are_apart, marks_of
from model_compiler.data.samples import Samples
from model_compiler.errors import CompileError, about
from model_compiler.plan import Net, Plan, Prune
from model_compiler.yardstick import is_labelled


class Need(msgspec.Struct, frozen=True):
    """`part`: a field of Data; `why` it is needed, and what to change where there are no such samples: `instead`."""

    part: str
    why: str
    instead: str = ""


def check_parts(plan: Plan) -> None:
    """Raises CompileError for a part of the data that a stage needs and that is empty, or lacks labels."""
    for need in needs_of(plan):
        if not len(getattr(plan.data, need.part)):
            name, instead = in_recipe(need.part), need.instead and f", or {need.instead}"
            raise CompileError(
                f"{plan.reference}: there are no {_IN_WORDS.get(need.part, need.part)} samples, and {need.why}. Name "
                f"`{name}` in [data]{instead}.",
                key=f"data.{name}",
            )
    if plan.metric is None and not is_labelled(plan.data.validation):
        for need in _choices(plan):
            raise CompileError(
                f"{plan.reference}: some validation samples have no label, and {need.why} by accuracy. Label them, "
                f"name a metric that needs none, or {need.instead}.",
                key="data.validation",
            )


def check_samples(plan: Plan, *, certified: bool) -> None:
    """Looks into the parts. Raises CompileError for inputs that are not finite, and for one part in two uses where that
    voids a promise or a measurement. `certified`: there is, or will be, a cloud bundle."""
    parts = msgspec.structs.asdict(plan.data)
    marks = {part: _marks(samples, in_recipe(part)) for part, samples in parts.items()}
    for part, other, why in _apart(plan, certified=certified):
        if not are_apart(marks[part], marks[other]) or _equal(parts[part], parts[other]):
            name, others = in_recipe(part), in_recipe(other)
            raise CompileError(
                f"{plan.reference}: `{name}` has samples that `{others}` has too. {why}: give `{name}` samples of its "
                "own in [data], or leave it out.",
                key=f"data.{name}",
            )


def _marks(samples: Samples, name: str) -> list[bytes]:
    with about(f"data.{name}"):
        return marks_of(samples, name)


def in_recipe(part: str) -> str:
    """What the [data] table of a recipe calls a field of Data."""
    return "calibration" if part == "ranges" else part


def needs_of(plan: Plan) -> Iterator[Need]:
    """What the plan's stages cannot do without, in the order in which they run."""
    if learners := _learners(plan):
        yield Need("train", f"{learners[0]} learns from them", "give it weights")
    yield from _choices(plan)
    if any(artifact.precision == "int8" for artifact in plan.artifacts):
        yield Need("ranges", "int8 takes its ranges from them", "leave int8 out of the precisions")
        yield Need("validation", "int8 is chosen by them", "leave int8 out of the precisions")


_IN_WORDS = {"train": "training", "ranges": "calibration"}


def _learners(plan: Plan) -> list[str]:
    sources = (plan.teacher, plan.student)
    found = [each.name for each in sources if isinstance(each, Net) and each.weights is None]
    return [*found, "the pruned teacher"] if plan.prune is not None else found


def _choices(plan: Plan) -> Iterator[Need]:
    """What is chosen by the score of torch networks."""
    if _judges(plan.prune):
        yield Need("validation", "pruning by sensitivity judges layers", "prune by magnitude")
    learning = plan.learning
    if learning is not None and learning.trial is not None and len(learning.ways) > 1 and _distils(plan):
        yield Need("validation", "the best of several ways is chosen", "name one way alone")


def _apart(plan: Plan, *, certified: bool) -> Iterator[tuple[str, str, str]]:
    """Parts that must share no sample, and why."""
    learned = ("train",) if _learners(plan) or plan.learning is not None else ()
    if certified and plan.kind in ("logits", "probabilities") and len(plan.data.fit):
        for other in (*learned, "ranges", "validation", "fit", "test"):
            yield "threshold", other, "A promise holds only by samples that were seen by nothing else"
    for other in learned:
        yield "test", other, "A score on samples that a model learned says nothing of others"


def _equal(one: Samples, other: Samples) -> bool:
    """Digests tell it of parts whose rows tell nothing."""
    return 0 < len(one) == len(other) and one.digest() == other.digest()


def _judges(prune: Prune | None) -> bool:
    return prune is not None and prune.method == "sensitivity"


def _distils(plan: Plan) -> bool:
    """Whether anything learns from a teacher."""
    student = plan.student
    return plan.teacher is not None and (
        plan.prune is not None or (isinstance(student, Net) and student.weights is None)
    )
