"""What a student is told in training: pure functions of logits, labels and features, each after its paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

UNLABELLED = -1


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean of -log softmax(logits)[label] over the rows that have a label; 0 where none has.

    `logits`: (n, classes) float32; `labels`: (n,) int64, -1 where unknown.
    """
    from torch.nn import functional

    total = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def hinton(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 4.0) -> torch.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows.

    `student`, `teacher`: (n, classes) logits. T^2 keeps the gradients' size when T changes. Hinton, Vinyals, Dean 2015,
    "Distilling the Knowledge in a Neural Network", arXiv:1503.02531. T = 4 as in the comparison of Tian et al. 2020.
    """
    return temperature**2 * _divergence(_log_shares(student, temperature), _log_shares(teacher, temperature)).mean()


def decoupled(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    target: float = 1.0,
    others: float = 2.0,
    temperature: float = 4.0,
) -> torch.Tensor:
    """T^2 (a TCKD + b NCKD): what the teacher says of the label, and what it says of all others, weighed apart.

    With p = softmax(logits / T) and y the label: TCKD = KL of (p_y, 1 - p_y), NCKD = KL of p without y, made to sum to
    1; both KL(teacher || student), the mean over rows; a = `target`, b = `others`. A row without a label (-1) takes
    the teacher's top label for y. `student`, `teacher`: (n, classes >= 2) logits; `labels`: (n,) int64.

    Zhao, Cui, Song, Qiu, Liang 2022, "Decoupled Knowledge Distillation", arXiv:2203.08679; a = 1, T = 4 there, and
    b from 2 for small teachers to 8 for big ones.
    """
    import torch

    known = torch.where(labels == UNLABELLED, teacher.argmax(dim=1), labels)
    one, other = _split(student / temperature, known), _split(teacher / temperature, known)
    told_target, told_others = (_divergence(mine, theirs).mean() for mine, theirs in zip(one, other, strict=True))
    return temperature**2 * (target * told_target + others * told_others)


def relations(
    student: torch.Tensor,
    teacher: torch.Tensor,
    *,
    between: float = 2.0,
    within: float = 2.0,
    temperature: float = 1.0,
) -> torch.Tensor:
    """T^2 (b (1 - mean r of rows) + c (1 - mean r of columns)), r the Pearson correlation of student and teacher.

    Rows and columns are those of softmax(logits / T): the relations between classes in one sample (b = `between`),
    and those within one class over the batch (c = `within`). What is constant for the teacher has no relations and is
    left out. `student`, `teacher`: (n, classes) logits.

    Huang, You, Wang, Qian, Xu 2022, "Knowledge Distillation from a Stronger Teacher", arXiv:2205.10536 (DIST).
    The authors' code defaults to b = c = 1, T = 1 and weighs the sum; here the weight of 2 is in b and c.
    """
    mine, theirs = (_log_shares(logits, temperature).exp() for logits in (student, teacher))
    return temperature**2 * (between * _unrelated(mine, theirs) + within * _unrelated(mine.T, theirs.T))


def hints(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """|student - teacher|^2 / (2 |teacher|^2), both lengths over the whole batch; 0 where the teacher's is 0.

    `student`: (n, features), already brought to the teacher's size by a regressor; `teacher`: (n, features).
    Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, equation 3, divided by the size of the
    teacher's features, so that one weight suits networks of any width and scale.
    """
    size = teacher.square().sum()
    return (student - teacher).square().sum() / (2 * size) if size > 0 else 0 * student.sum()


def _log_shares(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    from torch.nn import functional

    return functional.log_softmax(logits / temperature, dim=1)


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of each row of two log-distributions (n, k): (n,)."""
    return (teacher.exp() * (teacher - student)).sum(dim=1)


def _split(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logs of (p_y, 1 - p_y), (n, 2), and of p without y, (n, classes - 1).

    1 - p_y is summed from the others' exponents: subtracted from 1 it would be 0 for a sure teacher, and its log -inf.
    """
    import torch
    from torch.nn import functional

    chosen = functional.one_hot(labels, logits.shape[1]).bool()
    others = logits[~chosen].view(len(logits), -1)
    pair = torch.stack([logits[chosen], others.logsumexp(dim=1)], dim=1)
    return functional.log_softmax(pair, dim=1), functional.log_softmax(others, dim=1)


def _unrelated(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - the mean Pearson correlation of the rows of (m, k), over the rows in which the teacher's values differ."""
    from torch.nn import functional

    mine, theirs = (values - values.mean(dim=1, keepdim=True) for values in (student, teacher))
    telling = theirs.norm(dim=1) > _EVEN
    related = (functional.normalize(mine, dim=1, eps=_EVEN) * functional.normalize(theirs, dim=1, eps=_EVEN)).sum(dim=1)
    return ((1 - related) * telling).sum() / telling.sum().clamp(min=1)


_EVEN = 1e-6
"""A row of shares this close to even counts as even: its direction is noise, and its gradient would explode."""
