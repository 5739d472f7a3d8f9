"""Quantization-aware training of a student, on what it learned from before."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_compiler.begin import sample_of
from model_compiler.compilation import Compilation
from model_compiler.learn import Learned, Model, export_net
from model_compiler.learning.qat import Scheme, fine_tune
from model_compiler.learning.train import Schedule
from model_compiler.learning.ways import loss_of
from model_compiler.networks import save_net, saved_net
from model_compiler.progress import Advance
from model_compiler.yardstick import is_labelled


def can_retrain(work: Compilation, learned: Learned) -> bool:
    """Whether there is a network, and something for it to learn from; a warning where only that is missing."""
    if learned.student.net is None:
        return False
    if _taught(learned) or is_labelled(work.plan.data.train):
        return True
    work.warn("No quantization-aware training: it learns from labels, or on from the teacher, and there are neither.")
    return False


def _taught(learned: Learned) -> bool:
    """Whether the student learned from the teacher, and so goes on to."""
    return learned.lesson is not None and learned.way != "plain"


def retrain(work: Compilation, learned: Learned, schedule: Schedule, scheme: Scheme) -> Model:
    """The student after training with its numbers rounded by `scheme`. Call `can_retrain` first."""
    plan, student, net, lesson = work.plan, learned.student, learned.student.net, learned.lesson
    assert plan.learning is not None  # it has the schedule
    assert net is not None  # ONNX files are not trained
    augment = plan.learning.augment

    def produce(directory: Path, advance: Advance) -> None:
        loss = loss_of(plan.data.train, lesson.answers, learned.way) if lesson and _taught(learned) else None
        result = fine_tune(
            net,
            plan.data.train,
            schedule,
            sample=sample_of(plan),
            scheme=scheme,
            seed=plan.seed,
            loss=loss,
            augment=augment,
            advance=advance,
        )
        save_net(result.net, directory)

    told = {
        "net": student.digest,
        "train": plan.data.train.digest(),
        "schedule": msgspec.structs.asdict(schedule),
        "augment": msgspec.structs.asdict(augment),
        "scheme": scheme,
        "seed": plan.seed,
        "lesson": {**lesson.inputs, "way": learned.way} if lesson and _taught(learned) else {},
    }
    return export_net(work, saved_net(work.stage("qat", told, produce)), student.code)
