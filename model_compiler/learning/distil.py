"""Knowledge distillation: a small student learns from a big teacher, in the way that a short trial shows to be best."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from model_compiler.data.samples import Numbers, Samples, first
from model_compiler.errors import CompileError
from model_compiler.learning import losses
from model_compiler.learning.augment import PLAIN, Augment
from model_compiler.learning.features import last_linear, tapped
from model_compiler.learning.judge import OUTPUTS, evaluating, judge_by
from model_compiler.learning.prune_unstructured import zeros_held
from model_compiler.learning.teaching import Answers, Source
from model_compiler.learning.train import Schedule, answer_of, run, seeded
from model_compiler.learning.ways import PROBE, WAYS, Way, Weights, labels_of, loss_of, probe, told, why_not
from model_compiler.metrics import Metric
from model_compiler.progress import Advance, unwatched

if TYPE_CHECKING:
    import torch


def distil(
    student: torch.nn.Module,
    samples: Samples,
    teaching: Source,
    schedule: Schedule,
    *,
    way: Way = "kd",
    weights: Weights | None = None,
    seed: int,
    augment: Augment = PLAIN,
    advance: Advance = unwatched,
) -> None:
    """Fits `student` to the labels and to what the teacher says, and leaves it in eval mode.

    Samples without a label (-1), and labels that are no class numbers, count only by what the teacher says of them.
    `hints` also fits a linear map from what goes into the student's last linear layer to what goes into the teacher's;
    the map is dropped afterwards. Weights that are exactly 0, as unstructured pruning leaves them, stay so. The same
    inputs give the same weights. Raises CompileError where `teaching` does not
    fit the samples, the views or the student, or the way cannot be gone with it.
    """
    _check(student, samples, teaching, way, augment)
    chosen = weights or WAYS[way]
    with zeros_held(student):
        if way == "hints":
            _distil_with_hints(student, samples, teaching, schedule, chosen, seed, augment, advance)
        else:
            loss = loss_of(samples, teaching, way, chosen)
            run(student, samples, loss, schedule, seed=seed, augment=augment, advance=advance)


class Trial(msgspec.Struct, frozen=True):
    """What a student that learned for a short time in this way scored on the validation samples, of 1."""

    way: Way
    score: float


def choose_way(
    build: Callable[[], torch.nn.Module],
    ways: Sequence[Way],
    samples: Samples,
    teaching: Source,
    validation: Samples,
    trial: Schedule,
    *,
    seed: int,
    augment: Augment = PLAIN,
    metric: Metric | None = None,
    outputs: tuple[str, ...] = OUTPUTS,
    advance: Advance = unwatched,
) -> tuple[Trial, ...]:
    """Tries each of `ways` for a short time from the same start, and gives what each scored, the best first.

    One round of successive halving (Jamieson, Talwalkar 2016, "Non-stochastic Best Arm Identification and
    Hyperparameter Optimization", arXiv:1502.07943): the winner alone is worth the full training. Of equal scores the
    way named first wins. `build` is called once; it may give a network that has learned before. `metric` of `outputs`
    on `validation` decides, accuracy where none is given. Ways that cannot be gone (see `why_not`) are left out.
    """
    possible = [way for way in dict.fromkeys(ways) if not why_not(way, samples, teaching)]
    if not possible:
        reasons = "; ".join(f"{way}: {why_not(way, samples, teaching)}" for way in ways) or "none was named"
        raise CompileError(f"No way of learning can be tried ({reasons}). Name one of {', '.join(WAYS)} that can.")
    judge = judge_by(validation, metric, outputs)
    with seeded(seed):
        start = build()
    trials = []
    for number, way in enumerate(possible):
        student = copy.deepcopy(start)
        part = _part_of(advance, number, len(possible))
        distil(student, samples, teaching, trial, way=way, seed=seed, augment=augment, advance=part)
        trials.append(Trial(way, judge(student)))
    return tuple(sorted(trials, key=lambda each: -each.score))


def _distil_with_hints(
    student: torch.nn.Module,
    samples: Samples,
    teaching: Source,
    schedule: Schedule,
    weights: Weights,
    seed: int,
    augment: Augment,
    advance: Advance,
) -> None:
    import torch

    last = last_linear(student, first(samples, PROBE))
    if last is None:
        raise CompileError("Hints need a student with a linear layer. Choose another way, such as kd.")
    with seeded(seed):
        bridge = torch.nn.Linear(last.in_features, _shown(probe(samples, teaching)).shape[1])
    labels = labels_of(samples)

    def loss(both: torch.nn.Module, inputs: torch.Tensor, rows: Numbers, view: int) -> torch.Tensor:
        answers = teaching.answers(inputs, rows, view)
        said = told("hints", weights, answer_of(student(inputs)), answers, labels[rows])
        return said + weights.hints * losses.hints(bridge(tap.features), _shown(answers))

    with tapped(last) as tap:
        both = torch.nn.ModuleList([student, bridge])
        run(both, samples, loss, schedule, seed=seed, augment=augment, advance=advance)


def _shown(answers: Answers) -> torch.Tensor:
    if answers.features is None:
        raise CompileError("Hints need a teacher that shows features. Choose another way, such as kd.")
    return answers.features


def _check(student: torch.nn.Module, samples: Samples, teaching: Source, way: Way, augment: Augment) -> None:
    import torch

    with evaluating(student), torch.no_grad():
        given = answer_of(student(torch.from_numpy(first(samples, PROBE))))
    if way != "plain":
        teaching.fits(samples, augment)
        wanted = probe(samples, teaching).logits
        if wanted.shape != given.shape:
            raise CompileError(
                f"The student answers {tuple(given.shape)} to {PROBE} samples, the teacher {tuple(wanted.shape)}. "
                "Give both the same classes."
            )
    reason = why_not(way, samples, teaching)
    if reason:
        raise CompileError(f"The way {way!r} cannot be gone: {reason}. Choose another, such as kd.")
    highest = int(labels_of(samples).max())
    if highest >= given.shape[1]:
        raise CompileError(
            f"A sample has label {highest}, but the student knows {given.shape[1]} classes, numbered from 0. "
            "Give it as many as there are labels."
        )


def _part_of(advance: Advance, number: int, count: int) -> Advance:
    return lambda done: advance((number + done) / count)
