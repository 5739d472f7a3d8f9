"""The ways in which a student can learn, the weights of each, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from model_compiler.data.samples import Numbers, Samples, first
from model_compiler.learning import losses
from model_compiler.learning.losses import UNLABELLED
from model_compiler.learning.teaching import Answers, Source
from model_compiler.learning.train import answer_of

if TYPE_CHECKING:
    import torch

    from model_compiler.learning.train import Loss

    Own = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "Weights"], torch.Tensor]
    """(student's logits, teacher's logits, labels, weights) -> a scalar."""

Way = Literal["plain", "kd", "dkd", "dist", "hints"]


class Weights(msgspec.Struct, frozen=True):
    """The loss is `labels` x cross-entropy + `teacher` x the way's own loss + `hints` x the features' distance.

    The others are the parameters of that own loss; see model_compiler.learning.losses.
    """

    labels: float
    teacher: float = 0.0
    hints: float = 0.0
    temperature: float = 4.0
    target: float = 1.0
    others: float = 2.0
    between: float = 2.0
    within: float = 2.0


WAYS: dict[Way, Weights] = {
    # The control: what the student learns without a teacher.
    "plain": Weights(labels=1.0),
    # Hinton et al. 2015 give the labels "a considerably lower weight"; these figures are those of Tian et al. 2020,
    # "Contrastive Representation Distillation", arXiv:1910.10699.
    "kd": Weights(labels=0.1, teacher=0.9, temperature=4.0),
    # Zhao et al. 2022; others = 2 is theirs for a small teacher (ResNet-56); bigger ones have up to 8.
    "dkd": Weights(labels=1.0, teacher=1.0, temperature=4.0, target=1.0, others=2.0),
    # Huang et al. 2022; the weights as losses.relations says.
    "dist": Weights(labels=1.0, teacher=1.0, temperature=1.0, between=2.0, within=2.0),
    # Romero et al. 2015 give hints first and distil afterwards; here both at once: kd, and hints.
    "hints": Weights(labels=0.1, teacher=0.9, hints=1.0, temperature=4.0),
}

PAPERS: dict[Way, str] = {
    "plain": "",
    "kd": "Hinton, Vinyals, Dean 2015, arXiv:1503.02531",
    "dkd": "Zhao, Cui, Song, Qiu, Liang 2022, arXiv:2203.08679",
    "dist": "Huang, You, Wang, Qian, Xu 2022, arXiv:2205.10536",
    "hints": "Romero, Ballas, Kahou, Chassang, Gatta, Bengio 2015, arXiv:1412.6550",
}

_OWN: dict[Way, Own] = {
    "kd": lambda student, teacher, labels, given: losses.hinton(student, teacher, given.temperature),
    "dkd": lambda student, teacher, labels, given: losses.decoupled(
        student, teacher, labels, target=given.target, others=given.others, temperature=given.temperature
    ),
    "dist": lambda student, teacher, labels, given: losses.relations(
        student, teacher, between=given.between, within=given.within, temperature=given.temperature
    ),
    "hints": lambda student, teacher, labels, given: losses.hinton(student, teacher, given.temperature),
}


def loss_of(samples: Samples, teaching: Source, way: Way, weights: Weights | None = None) -> Loss:
    """The loss of `way`, without hints, for a network that gives logits (n, classes).

    For training loops of one's own: quantization-aware training may go on learning from the teacher by it.
    """
    chosen, labels = weights or WAYS[way], labels_of(samples)

    def loss(net: torch.nn.Module, inputs: torch.Tensor, rows: Numbers, view: int) -> torch.Tensor:
        logits = answer_of(net(inputs))
        if way == "plain":
            return chosen.labels * losses.cross_entropy(logits, labels[rows])
        return told(way, chosen, logits, teaching.answers(inputs, rows, view), labels[rows])

    return loss


def told(way: Way, weights: Weights, logits: torch.Tensor, answers: Answers, labels: torch.Tensor) -> torch.Tensor:
    """What the labels and the teacher's logits say of the student's `logits`; all of the same rows."""
    own = _OWN[way](logits, answers.logits, labels, weights)
    return weights.labels * losses.cross_entropy(logits, labels) + weights.teacher * own


def why_not(way: Way, samples: Samples, teaching: Source) -> str:
    """Why `way` cannot be gone with these samples and this teacher; empty where it can."""
    if way == "plain" and bool((labels_of(samples) == UNLABELLED).all()):
        return "no sample has a label, and the control learns from nothing else"
    if way == "hints" and probe(samples, teaching).features is None:
        return "the teacher shows no features: a torch network shows those of its last linear layer, an ONNX file none"
    return ""


def labels_of(samples: Samples) -> torch.Tensor:
    """(n,) int64, -1 where unknown; labels that are no class numbers, for a metric of one's own, are unknown here."""
    import torch

    labels = np.asarray(samples.labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return torch.full((len(samples),), UNLABELLED)
    return torch.from_numpy(np.maximum(labels.astype(np.int64), UNLABELLED))


PROBE = 2


def probe(samples: Samples, teaching: Source) -> Answers:
    """The teacher's answers to the first PROBE samples: what they look like."""
    import torch

    inputs = first(samples, PROBE)
    return teaching.answers(torch.from_numpy(inputs), np.arange(len(inputs)), 0)
