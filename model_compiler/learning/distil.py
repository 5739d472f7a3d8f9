"""Knowledge distillation: a small student learns from a big teacher's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from model_compiler.data.samples import Floats, Numbers, Samples
from model_compiler.learning.train import Schedule, run
from model_compiler.progress import Advance, unwatched

if TYPE_CHECKING:
    import torch


class Distillation(msgspec.Struct, frozen=True):
    """`temperature` softens both distributions; `teacher_share` weighs the teacher against the labels."""

    temperature: float = 3.0
    teacher_share: float = 0.7


HINTON = Distillation()


def distil(
    student: torch.nn.Module,
    samples: Samples,
    teacher_logits: Floats,
    schedule: Schedule,
    *,
    seed: int,
    distillation: Distillation = HINTON,
    advance: Advance = unwatched,
) -> None:
    """Fits `student` to labels and to `teacher_logits` (n, classes), and leaves it in eval mode.

    Loss (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"):
    (1 - a) * CE(labels) + a * T^2 * KL(softmax(teacher / T) || softmax(student / T)).
    """
    import torch
    from torch.nn import functional

    labels, share, heat = torch.from_numpy(samples.labels), distillation.teacher_share, distillation.temperature
    soft = functional.log_softmax(torch.from_numpy(teacher_logits) / heat, dim=1)

    def loss(net: torch.nn.Module, inputs: torch.Tensor, rows: Numbers, view: int) -> torch.Tensor:
        logits = net(inputs)
        hard = functional.cross_entropy(logits, labels[torch.from_numpy(rows)])
        student_soft = functional.log_softmax(logits / heat, dim=1)
        divergence = functional.kl_div(student_soft, soft[rows], log_target=True, reduction="batchmean")
        return (1 - share) * hard + share * heat * heat * divergence

    run(student, samples, loss, schedule, seed=seed, advance=advance)
