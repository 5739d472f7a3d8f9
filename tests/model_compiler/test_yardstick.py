"""What artifacts are judged by: the user's metric, labels, or likeness to a reference; row by row where rows count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.data.samples import Arrays, Floats, Rows
from model_compiler.plan import OnnxFile
from model_compiler.replay import Ends, all_outputs_of
from model_compiler.yardstick import Yardstick, chances_kept, is_labelled, rounding_yardstick, yardstick
from runtime.serving.models.confidence import softmax
from tests.model_compiler.small import CLASSES, ENDS, NUMBERS, RIGHT, linear, plan, rows, unlabelled

SAMPLES = rows(130, 7)
TWO = Ends(ENDS.input, ("logits", "boxes"))


def blurred(seed: int = 0, size: float = 3.0) -> Floats:
    """What a model multiplies with that errs now and then."""
    return np.asarray(RIGHT + size * np.random.default_rng(seed).standard_normal(RIGHT.shape), np.float32)


def scores(by: Yardstick, artifact: Path, ends: Ends = ENDS) -> list[float]:
    assert by.rows is not None
    outputs = all_outputs_of(artifact, by.samples, ends)
    each = by.rows(outputs, by.samples.labels)
    assert by.whole(outputs, by.samples.labels) == pytest.approx(each.mean())
    return [float(score) for score in each]


def test_the_users_own_metric_judges_the_whole_and_no_row(tmp_path: Path) -> None:
    def largest(outputs: Any, labels: Any) -> float:
        return float(outputs["logits"].max() + labels.sum())

    by = yardstick(plan(metric=largest, metric_name="nets:largest"), SAMPLES, tmp_path / "none.onnx")
    assert (by.name, by.rows) == ("nets:largest", None)
    assert by.whole({"logits": np.full((1, 3), 2.0, np.float32)}, np.array([5])) == 7.0
    assert yardstick(plan(metric=largest), SAMPLES, tmp_path / "none.onnx").name == "metric of the recipe"


def test_labels_judge_a_classifier_and_no_reference_does(tmp_path: Path) -> None:
    by = yardstick(plan(), SAMPLES, linear(tmp_path / "wrong.onnx", {"logits": -RIGHT}))
    assert by.name == "accuracy"
    assert scores(by, linear(tmp_path / "right.onnx", {"logits": RIGHT})) == [1.0] * 130
    assert scores(by, tmp_path / "wrong.onnx") == [0.0] * 130


def test_where_a_label_is_missing_the_reference_tells_what_its_answers_are_worth(tmp_path: Path) -> None:
    """Against a reference that is sure, the share that agrees; against one that is not, hardly anything is lost."""
    samples = Arrays(SAMPLES.inputs, np.where(np.arange(130) == 5, -1, SAMPLES.labels))
    sure = linear(tmp_path / "sure.onnx", {"logits": RIGHT})
    unsure = linear(tmp_path / "unsure.onnx", {"logits": RIGHT / 1000})
    other = linear(tmp_path / "other.onnx", {"logits": blurred()})
    by = yardstick(plan(), samples, sure)
    assert by.name == "accuracy kept, by the float form's own probabilities"
    assert scores(by, sure) == [1.0] * 130
    ours, theirs = (all_outputs_of(path, samples, ENDS)["logits"].argmax(axis=1) for path in (other, sure))
    assert 0.5 < (ours == theirs).mean() < 0.95
    assert np.mean(scores(by, other)) == pytest.approx((ours == theirs).mean(), abs=0.1)
    assert min(scores(yardstick(plan(), samples, unsure), other)) > 0.98


@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_a_row_is_held_against_its_own_row_of_the_reference(task: str, tmp_path: Path) -> None:
    """Blocks of rows are scored apart, to tell how sure a difference is."""
    told = plan(task=task, kind="logits" if task == "classification" else "vector")
    by = yardstick(told, unlabelled(SAMPLES), linear(tmp_path / "reference.onnx", {"logits": RIGHT}))
    assert by.rows is not None
    other = linear(tmp_path / "other.onnx", {"logits": blurred()})
    whole, some = scores(by, other), np.array([100, 3, 64])
    outputs = all_outputs_of(other, Rows(by.samples, some), ENDS)
    assert by.rows(outputs, by.samples.labels[some]) == pytest.approx([whole[row] for row in some])
    assert len(set(whole)) > 10


def test_roundings_are_told_apart_by_what_is_expected_of_them_not_by_luck(tmp_path: Path) -> None:
    """Labels that the float form's probabilities gave at twice the heat: the drop is the same, and varies far less."""
    inputs, rng, heat = rows(20_000, 9).inputs, np.random.default_rng(9), 2.0
    labels = (inputs @ RIGHT / 4 / heat + rng.gumbel(size=(len(inputs), CLASSES))).argmax(axis=1)
    exact = linear(tmp_path / "exact.onnx", {"logits": RIGHT / 4})
    rounded = linear(tmp_path / "rounded.onnx", {"logits": blurred(4, 1.5) / 4})
    drops: dict[str, list[float]] = {"counted": [], "expected": []}
    for part in np.array_split(np.arange(len(inputs)), 40):
        samples = Arrays(inputs[part], labels[part])
        counted, expected = yardstick(plan(), samples, exact), rounding_yardstick(plan(), samples, exact, exact)
        assert expected.name == "expected accuracy"
        assert np.mean(scores(expected, exact)) == pytest.approx(np.mean(scores(counted, exact)))
        for name, by in (("counted", counted), ("expected", expected)):
            drops[name].append(float(np.mean(scores(by, exact)) - np.mean(scores(by, rounded))))
    assert np.mean(drops["counted"]) > 0.005
    assert np.mean(drops["expected"]) == pytest.approx(np.mean(drops["counted"]), abs=0.004)
    assert np.std(drops["expected"]) < 0.5 * np.std(drops["counted"])


def test_roundings_are_judged_as_everything_else_where_labels_do_not_judge(tmp_path: Path) -> None:
    exact = linear(tmp_path / "exact.onnx", {"logits": RIGHT})
    for told, samples in (
        (plan(metric=lambda outputs, labels: 0.5, metric_name="nets:half"), SAMPLES),
        (plan(task="embedding", kind="vector"), SAMPLES),
        (plan(), unlabelled(SAMPLES)),
    ):
        assert rounding_yardstick(told, samples, exact, exact).name == yardstick(told, samples, exact).name


def test_probabilities_are_taken_as_they_are(tmp_path: Path) -> None:
    logits = linear(tmp_path / "logits.onnx", {"logits": blurred(1, 0.2) / 8})
    chances = linear(tmp_path / "chances.onnx", {"logits": blurred(1, 0.2) / 8}, last="Softmax")
    other = linear(tmp_path / "other.onnx", {"logits": blurred(2)})
    by = [
        yardstick(plan(kind=kind), unlabelled(SAMPLES), reference)
        for kind, reference in (("logits", logits), ("probabilities", chances))
    ]
    assert scores(by[0], other) == pytest.approx(scores(by[1], other), abs=1e-5)
    assert np.std(scores(by[0], other)) > 0.01


def test_the_name_says_whose_answers_judge(tmp_path: Path) -> None:
    reference = linear(tmp_path / "reference.onnx", {"logits": RIGHT})
    alone = plan(task="embedding", kind="vector")
    taught = plan(task="embedding", kind="vector", teacher=OnnxFile(reference))
    assert yardstick(alone, SAMPLES, reference).name == "cosine with the float form"
    assert yardstick(taught, SAMPLES, reference).name == "cosine with the teacher"


def test_any_other_task_is_judged_by_all_outputs_even_where_there_are_labels(tmp_path: Path) -> None:
    weights = {"logits": RIGHT, "boxes": blurred(3)}
    reference = linear(tmp_path / "reference.onnx", weights)
    by = yardstick(plan(task="detection", kind="tensors", ends=TWO), SAMPLES, reference)
    assert scores(by, reference, TWO) == pytest.approx([1.0] * 130)
    half = linear(tmp_path / "half.onnx", {"logits": RIGHT, "boxes": -blurred(3)})
    assert scores(by, half, TWO) == pytest.approx([0.0] * 130, abs=1e-6)


def test_a_reference_that_insists_on_a_batch_is_asked_in_its_batches(tmp_path: Path) -> None:
    one, many = (linear(tmp_path / f"{batch}.onnx", {"logits": RIGHT}, batch=batch) for batch in (1, "n"))
    by = [yardstick(plan(), unlabelled(SAMPLES), reference) for reference in (one, many)]
    assert scores(by[0], many) == scores(by[1], many)


@given(st.integers(0, 10_000), st.floats(0.1, 5.0))
def test_what_is_kept_of_a_references_accuracy_is_what_its_probabilities_expect(seed: int, heat: float) -> None:
    rng = np.random.default_rng(seed)
    logits, outputs = (rng.standard_normal((40, 4)).astype(np.float32) for _ in range(2))
    chances = softmax(logits, 1 / heat)
    kept = chances_kept(outputs, chances)
    assert ((kept >= 0) & (kept <= 1)).all()
    assert (kept[outputs.argmax(axis=1) == chances.argmax(axis=1)] == 1).all()
    expected = chances[np.arange(40), outputs.argmax(axis=1)].mean()
    assert 1 - kept.mean() == pytest.approx(chances.max(axis=1).mean() - expected)


@pytest.mark.parametrize(
    ("labels", "labelled"),
    [
        (np.array([0, 2]), True),
        (np.array([0, -1]), False),
        (np.zeros(0, np.int64), False),
        (np.array([0.0, 1.0]), False),
        (np.zeros((2, CLASSES), np.int64), False),
    ],
)
def test_samples_are_labelled_where_each_has_a_class_number(labels: Any, labelled: bool) -> None:
    assert is_labelled(Arrays(np.zeros((len(labels), NUMBERS), np.float32), labels)) == labelled
