"""What a model answers to a few real inputs, held against its plan: before hours are spent on it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from model_compiler.data.folder import UNLABELLED
from model_compiler.data.samples import Floats, Labels
from model_compiler.errors import CompileError
from model_compiler.plan import Plan
from model_compiler.plan_check import in_recipe


def check_answers(plan: Plan, name: str, answers: Mapping[str, Floats], rows: int) -> None:
    """`answers` of the model called `name` to `rows` inputs. Raises CompileError where they are not what the plan says,
    or the samples' labels are none of its classes."""
    for output in plan.ends.outputs:
        if answers[output].shape[:1] != (rows,):
            raise CompileError(
                f"{name} gives {output} as {list(answers[output].shape)} for {rows} inputs. Give one row for each."
            )
    first = answers[plan.ends.output]
    if not np.isfinite(first).all():
        raise CompileError(f"{name} answers NaN or infinity. Look for weights or inputs that are far too large.")
    if plan.kind in ("logits", "probabilities", "vector") and first.ndim != 2:
        raise CompileError(
            f"{name} gives {plan.ends.output} as {list(first.shape)}; {plan.kind} are [rows, values]. Reshape them in "
            "the model, or set postprocess.kind."
        )
    if plan.kind in ("logits", "probabilities"):
        if first.shape[1] < 2:
            raise CompileError(f"{name} answers with one value a row. Give it an output for each class, two at least.")
        _check_classes(plan, name, first.shape[1])


def _check_classes(plan: Plan, name: str, classes: int) -> None:
    if plan.labels and len(plan.labels) != classes:
        raise CompileError(
            f"{name} knows {classes} classes, and {len(plan.labels)} labels are named ({', '.join(plan.labels[:8])}…). "
            "Name as many labels as it knows classes.",
            key="bundle.labels",
        )
    for field, samples in msgspec.structs.asdict(plan.data).items():
        part = in_recipe(field)
        if samples.labels.ndim == 1 and samples.labels.dtype.kind in "iu":
            _check_labels(part, samples.labels, name, classes)
        elif plan.metric is None:
            kind = f"{samples.labels.dtype} {list(samples.labels.shape)}"
            raise CompileError(
                f"The labels of {part} are {kind}. Give one whole number a sample, or name a metric.",
                key=f"data.{part}",
            )


def _check_labels(part: str, labels: Labels, name: str, classes: int) -> None:
    wrong = np.flatnonzero((labels < UNLABELLED) | (labels >= classes))
    if len(wrong):
        raise CompileError(
            f"The label of row {wrong[0]} of {part} is {labels[wrong[0]]}, and {name} knows the classes 0 to "
            f"{classes - 1} (-1: unlabelled). Mend the labels, or give the model as many classes.",
            key=f"data.{part}",
        )
