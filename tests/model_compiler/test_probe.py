"""A model's first answers held against its plan: shapes, numbers, classes and labels, each by its name."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from model_compiler.data.samples import Arrays
from model_compiler.errors import CompileError
from model_compiler.plan import Plan
from model_compiler.plan_check import in_recipe
from model_compiler.probe import check_answers
from model_compiler.replay import Ends
from tests.model_compiler.small import CLASSES, plan, rows

LOGITS = np.zeros((2, CLASSES), np.float32)
TWO = Ends("numbers", ("logits", "boxes"))


def labelled(part: str, labels: Any, **changes: Any) -> Plan:
    samples = Arrays(rows(len(labels), 0).inputs, np.asarray(labels))
    return plan(data=msgspec.structs.replace(plan().data, **{part: samples}), **changes)


def test_answers_that_fit_are_taken() -> None:
    for told in (
        plan(),
        plan(labels=("a", "b", "c")),
        plan(kind="probabilities"),
        labelled("train", [-1, 0, CLASSES - 1]),
        labelled("train", np.zeros(0, np.int64)),
        labelled("train", np.array([0, 2], np.uint8)),
        labelled("test", [0.5, 1.5], metric=lambda outputs, labels: 0.5),
        labelled("test", [[0.5, 1.5]], metric=lambda outputs, labels: 0.5),
    ):
        check_answers(told, "nets:some", {"logits": LOGITS}, 2)


@pytest.mark.parametrize(
    ("told", "answers", "wrong"),
    [
        (plan(), {"logits": LOGITS[:1]}, r"gives logits as \[1, 3\] for 2 inputs\. Give one row for each"),
        (plan(), {"logits": np.float32(1)}, r"gives logits as \[\] for 2 inputs"),
        (plan(ends=TWO), {"logits": LOGITS, "boxes": LOGITS[:0]}, r"gives boxes as \[0, 3\] for 2 inputs"),
        (plan(), {"logits": LOGITS + np.nan}, "answers NaN or infinity"),
        (plan(), {"logits": LOGITS - np.inf}, "answers NaN or infinity"),
        (plan(), {"logits": LOGITS[..., None]}, r"gives logits as \[2, 3, 1\]; logits are \[rows, values\]"),
        (plan(), {"logits": LOGITS[:, 0]}, r"gives logits as \[2\]; logits are \[rows, values\]"),
        (
            plan(kind="vector", task="embedding"),
            {"logits": LOGITS[:, 0]},
            r"gives logits as \[2\]; vector are \[rows, values\]",
        ),
        (plan(), {"logits": LOGITS[:, :1]}, "answers with one value a row. Give it an output for each class"),
        (plan(labels=("a", "b")), {"logits": LOGITS}, r"knows 3 classes, and 2 labels are named \(a, b…\)"),
    ],
)
def test_answers_that_do_not_fit_are_refused_by_the_models_name(told: Plan, answers: Any, wrong: str) -> None:
    with pytest.raises(CompileError, match=rf"^nets:some {wrong}"):
        check_answers(told, "nets:some", answers, 2)


@pytest.mark.parametrize("part", ["train", "ranges", "validation", "fit", "threshold", "test"])
def test_a_label_that_the_model_has_no_class_for_is_named_with_its_row(part: str) -> None:
    for wrong in (CLASSES, -2):
        told = labelled(part, [0, 1, wrong, wrong])
        named = in_recipe(part)
        words = rf"row 2 of {named} is {wrong}, and nets:some knows the classes 0 to 2"
        with pytest.raises(CompileError, match=words) as refused:
            check_answers(told, "nets:some", {"logits": LOGITS}, 2)
        assert refused.value.key == f"data.{named}"


@pytest.mark.parametrize("labels", [[0.5, 1.5], [[0, 1], [1, 0]]])
def test_labels_that_are_no_class_numbers_need_a_metric(labels: Any) -> None:
    with pytest.raises(
        CompileError, match=r"^The labels of validation are .*Give one whole number a sample, or name a"
    ):
        check_answers(labelled("validation", labels), "nets:some", {"logits": LOGITS}, 2)


def test_answers_of_bare_tensors_or_vectors_have_no_classes_to_check() -> None:
    odd = labelled("test", [77, 99])
    for kind, task, answers in (
        ("vector", "embedding", LOGITS[:, :1]),
        ("tensors", "detection", np.zeros((2, 4, 4), np.float32)),
        ("tensors", "detection", np.zeros(2, np.float32)),
    ):
        check_answers(msgspec.structs.replace(odd, kind=kind, task=task), "nets:some", {"logits": answers}, 2)
