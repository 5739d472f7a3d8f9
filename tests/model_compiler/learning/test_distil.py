"""Distillation: the student follows the teacher, not only the labels."""

from __future__ import annotations

import numpy as np
import torch

from model_compiler.data.samples import Arrays
from model_compiler.learning.distil import Distillation, distil
from model_compiler.learning.train import Schedule


def agreement_with_teacher(teacher_share: float) -> float:
    """How often a student says what the teacher says when every label is the teacher's opposite."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((512, 4)).astype(np.float32)
    teacher_logits = np.stack([inputs[:, 0], -inputs[:, 0]], axis=1) * 5
    samples = Arrays(inputs, teacher_logits.argmin(axis=1))
    student = torch.nn.Linear(4, 2)
    distillation = Distillation(temperature=2.0, teacher_share=teacher_share)
    distil(student, samples, teacher_logits, Schedule(epochs=20, peak=0.1), seed=0, distillation=distillation)
    with torch.inference_mode():
        answers = student(torch.from_numpy(inputs)).argmax(1).numpy()
    return float((answers == teacher_logits.argmax(axis=1)).mean())


def test_the_teachers_share_decides_whom_the_student_believes() -> None:
    assert agreement_with_teacher(1.0) > 0.95
    assert agreement_with_teacher(0.0) < 0.05
