"""Ways of learning: a loss is the sum that its weights say, and who cannot go a way is told why."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from model_compiler.data.samples import Arrays, Numbers
from model_compiler.learning import losses
from model_compiler.learning.augment import Augment
from model_compiler.learning.teaching import Answers, Teaching
from model_compiler.learning.train import seeded
from model_compiler.learning.ways import PAPERS, WAYS, Way, Weights, labels_of, loss_of, probe, told, why_not
from tests.model_compiler.small import CLASSES, NUMBERS, RIGHT, rows

SAMPLES = rows(12, 0)
LOGITS = (SAMPLES.inputs @ RIGHT)[None]
TEACHING, SHOWING = Teaching(LOGITS), Teaching(LOGITS, np.abs(LOGITS))
TAUGHT = tuple(way for way in WAYS if way != "plain")


class Silent:
    """A teacher whom nobody may ask."""

    def answers(self, inputs: torch.Tensor, rows: Numbers, view: int) -> Answers:
        raise AssertionError("asked")

    def fits(self, samples: Any, augment: Augment) -> None:
        raise AssertionError("asked")


def student() -> nn.Module:
    with seeded(0):
        return nn.Linear(NUMBERS, CLASSES)


def test_every_way_has_its_weights_and_every_one_with_a_teacher_its_paper() -> None:
    assert set(WAYS) == set(PAPERS) == set(get_args(Way))
    assert [way for way in PAPERS if "arXiv" not in PAPERS[way]] == ["plain"]


@pytest.mark.parametrize("way", TAUGHT)
def test_a_loss_is_what_the_labels_say_and_what_the_teacher_says(way: Way) -> None:
    logits, labels = torch.randn(12, CLASSES, generator=torch.Generator().manual_seed(0)), labels_of(SAMPLES)
    answers = Answers(torch.from_numpy(LOGITS[0]), None)
    parts = [told(way, Weights(labels=a, teacher=b), logits, answers, labels) for a, b in ((1, 0), (0, 1), (0.3, 7))]
    assert parts[0] == pytest.approx(losses.cross_entropy(logits, labels).item())
    assert parts[2].item() == pytest.approx((0.3 * parts[0] + 7 * parts[1]).item(), rel=1e-5)
    assert parts[1] > 0.01


@pytest.mark.parametrize("way", TAUGHT)
def test_a_student_that_says_what_the_teacher_says_has_nothing_to_learn_from_him(way: Way) -> None:
    answers = Answers(torch.from_numpy(LOGITS[0]), None)
    same = told(way, Weights(labels=0, teacher=1), answers.logits.clone(), answers, labels_of(SAMPLES))
    assert same.item() == pytest.approx(0, abs=1e-5)


def test_the_control_asks_no_teacher() -> None:
    net, rows = student(), np.arange(5, 9)
    inputs = torch.from_numpy(SAMPLES.inputs[rows])
    loss = loss_of(SAMPLES, Silent(), "plain")(net, inputs, rows, 0)
    wanted = nn.functional.cross_entropy(net(inputs), torch.from_numpy(SAMPLES.labels[rows]))
    assert loss.item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("way", TAUGHT)
def test_a_batch_is_held_against_the_teachers_answers_to_its_own_rows(way: Way) -> None:
    net, rows = student(), np.array([7, 2, 9, 4])
    loss = loss_of(SAMPLES, TEACHING, way, Weights(labels=0, teacher=1))
    inputs = torch.from_numpy(SAMPLES.inputs[rows])
    answers = Answers(torch.from_numpy(LOGITS[0][rows]), None)
    wanted = told(way, Weights(labels=0, teacher=1), net(inputs), answers, labels_of(SAMPLES)[rows])
    assert loss(net, inputs, rows, 0).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (np.array([0, 2, -1, -7]), [0, 2, -1, -1]),
        (np.array([0, 2], np.uint8), [0, 2]),
        (np.array([1], np.int8), [1]),
        (np.array([0.0, 1.0]), [-1, -1]),
        (np.zeros((3, 2), np.int64), [-1, -1, -1]),
    ],
)
def test_labels_are_class_numbers_or_unknown(given: Any, labels: list[int]) -> None:
    found = labels_of(Arrays(np.zeros((len(given), NUMBERS), np.float32), given))
    assert (found.dtype, found.tolist()) == (torch.int64, labels)


def test_who_cannot_go_a_way_is_told_why() -> None:
    bare = Arrays(SAMPLES.inputs, np.full(12, -1))
    some = Arrays(SAMPLES.inputs, np.where(np.arange(12) == 3, 1, -1))
    assert "no sample has a label" in why_not("plain", bare, TEACHING)
    assert "shows no features" in why_not("hints", SAMPLES, TEACHING)
    free: list[tuple[Way, Arrays, Teaching]] = [
        ("plain", some, TEACHING), ("kd", bare, TEACHING), ("hints", bare, SHOWING),
    ]  # fmt: skip
    assert [why_not(*each) for each in free] == [""] * 3


def test_a_probe_shows_the_answers_to_the_first_samples() -> None:
    found = probe(SAMPLES, SHOWING)
    assert found.features is not None
    assert np.array_equal(found.logits.numpy(), LOGITS[0][:2])
    assert found.features.shape == (2, CLASSES)
