"""The losses against slow formulas in float64, and what must hold of them for any logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_compiler.learning import losses

Doubles = npt.NDArray[np.float64]
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {
    "hinton": lambda student, teacher, labels: losses.hinton(student, teacher, 3.0),
    "decoupled": lambda student, teacher, labels: losses.decoupled(
        student, teacher, labels, target=1.5, others=4.0, temperature=3.0
    ),
    "relations": lambda student, teacher, labels: losses.relations(
        student, teacher, between=1.5, within=3.0, temperature=2.0
    ),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def draw(seed: int, rows: int = 12, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(rng.standard_normal((rows, classes)).astype(np.float32) * 3) for _ in range(2))
    return student, teacher, torch.from_numpy(rng.integers(0, classes, rows))


def softmax(values: Doubles) -> Doubles:
    shares: Doubles = np.exp(values) / np.exp(values).sum()
    return shares


def divergence(theirs: Doubles, mine: Doubles) -> float:
    return sum(float(p * np.log(p / q)) for p, q in zip(theirs, mine, strict=True))


def slow_hinton(student: Doubles, teacher: Doubles, labels: Doubles) -> float:
    rows = [divergence(softmax(t / 3), softmax(s / 3)) for s, t in zip(student, teacher, strict=True)]
    return 9 * sum(rows) / len(rows)


def slow_decoupled(student: Doubles, teacher: Doubles, labels: Doubles) -> float:
    total = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        p, q = softmax(t / 3), softmax(s / 3)
        pair = [np.array([each[label], 1 - each[label]]) for each in (p, q)]
        others = [np.delete(each, label) / np.delete(each, label).sum() for each in (p, q)]
        total += 1.5 * divergence(*pair) + 4 * divergence(*others)
    return 9 * total / len(labels)


def slow_relations(student: Doubles, teacher: Doubles, labels: Doubles) -> float:
    q, p = (np.stack([softmax(row / 2) for row in logits]) for logits in (student, teacher))
    between = np.mean([np.corrcoef(mine, theirs)[0, 1] for mine, theirs in zip(q, p, strict=True)])
    within = np.mean([np.corrcoef(mine, theirs)[0, 1] for mine, theirs in zip(q.T, p.T, strict=True)])
    return float(4 * (1.5 * (1 - between) + 3 * (1 - within)))


SLOW = {"hinton": slow_hinton, "decoupled": slow_decoupled, "relations": slow_relations}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_papers_formulas(name: str) -> None:
    for seed in range(5):
        student, teacher, labels = draw(seed)
        slow = SLOW[name](student.double().numpy(), teacher.double().numpy(), labels.numpy())
        assert float(LOSSES[name](student, teacher, labels)) == pytest.approx(slow, rel=1e-4)


@every_loss
def test_losses_are_0_for_the_teachers_own_logits_and_above_0_for_others(loss: Loss) -> None:
    student, teacher, labels = draw(1)
    assert float(loss(teacher, teacher, labels)) == pytest.approx(0, abs=1e-5)
    assert float(loss(student, teacher, labels)) > 0.1


@every_loss
@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-50, 50), of_teacher=st.booleans(), seed=st.integers(0, 1000))
def test_a_constant_added_to_all_of_a_rows_logits_changes_nothing(
    loss: Loss, shift: float, of_teacher: bool, seed: int
) -> None:
    student, teacher, labels = draw(seed)
    moves = torch.linspace(-1, 1, len(labels))[:, None] * shift
    moved = loss(student, teacher + moves, labels) if of_teacher else loss(student + moves, teacher, labels)
    assert float(moved) == pytest.approx(float(loss(student, teacher, labels)), rel=1e-3, abs=1e-4)


@every_loss
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_gradients_are_finite_for_extreme_logits(loss: Loss, size: float) -> None:
    """Sure and wrong, sure and right, all even: whatever one of the two says."""
    student, teacher, labels = draw(2)
    for mine, theirs in ((student * size, teacher * size), (student * size, student * size), (student * 0, teacher)):
        leaf = mine.clone().requires_grad_()
        value = loss(leaf, theirs, labels)
        value.backward()
        assert leaf.grad is not None
        assert bool(value.isfinite())
        assert bool(leaf.grad.isfinite().all())


@every_loss
def test_following_the_gradient_leads_to_the_teacher(loss: Loss) -> None:
    student, teacher, labels = draw(3)
    leaf = student.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss(leaf, teacher, labels).backward()
        optimizer.step()
    assert float(loss(leaf, teacher, labels).detach()) < 0.01
    assert torch.equal(leaf.argmax(dim=1), teacher.argmax(dim=1))


def test_what_is_constant_for_the_teacher_has_no_relations() -> None:
    """A class that the teacher never sees in a batch must not pull at the student."""
    student, teacher, _ = draw(4)
    teacher[:, 2] = -1e4
    matched = teacher.clone()
    matched[:, 2] = student[:, 2] - 1e3
    assert float(losses.relations(matched, teacher)) == pytest.approx(0, abs=1e-5)
    even = torch.zeros(3, 4)
    assert float(losses.relations(student[:3, :4], even)) == 0


def test_rows_without_a_label_take_the_teachers_top_label() -> None:
    student, teacher, _ = draw(5)
    unknown = torch.full((len(teacher),), losses.UNLABELLED)
    told = losses.decoupled(student, teacher, unknown)
    assert float(told) == float(losses.decoupled(student, teacher, teacher.argmax(dim=1)))


def test_cross_entropy_is_the_mean_over_rows_with_a_label() -> None:
    student, _, labels = draw(6)
    whole = torch.nn.functional.cross_entropy(student[::2], labels[::2])
    labels[1::2] = losses.UNLABELLED
    assert float(losses.cross_entropy(student, labels)) == pytest.approx(float(whole), rel=1e-6)
    leaf = student.clone().requires_grad_()
    nothing = losses.cross_entropy(leaf, torch.full_like(labels, losses.UNLABELLED))
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert leaf.grad is not None
    assert bool((leaf.grad == 0).all())


def test_hints_are_the_halved_square_distance_beside_the_teachers_size() -> None:
    rng = np.random.default_rng(7)
    mine, theirs = (rng.standard_normal((6, 4)).astype(np.float32) for _ in range(2))
    slow = sum(float((a - b) ** 2) for a, b in zip(mine.flat, theirs.flat, strict=True))
    slow /= 2 * sum(float(b) ** 2 for b in theirs.flat)
    one, other = torch.from_numpy(mine), torch.from_numpy(theirs)
    assert float(losses.hints(one, other)) == pytest.approx(slow, rel=1e-5)
    assert float(losses.hints(1e4 * one, 1e4 * other)) == pytest.approx(slow, rel=1e-5)
    assert float(losses.hints(other, other)) == 0
    assert float(losses.hints(one, 0 * other)) == 0
