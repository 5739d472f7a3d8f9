"""The digits' samples by their use, as a recipe names them: `model_compiler.digits.loaders:train` and so on."""

from __future__ import annotations

from functools import cache

from model_compiler.data.samples import Data, Samples
from model_compiler.digits import recipe, splits

DRAWS = 8
"""Camera frames of every training digit: half of what the demo takes, for a recipe that is tried out."""


def train() -> Samples:
    return _data().train


def calibration() -> Samples:
    return _data().ranges


def validation() -> Samples:
    return _data().validation


def fit() -> Samples:
    return _data().fit


def threshold() -> Samples:
    return _data().threshold


def test() -> Samples:
    return _data().test


@cache
def _data() -> Data:
    profile = recipe.Profile(
        train_draws=DRAWS,
        teacher_width=recipe.FULL.teacher_width,
        teacher=recipe.FULL.teacher,
        student=recipe.FULL.student,
        clean_student=recipe.FULL.clean_student,
    )
    return recipe.camera_data(splits.split(splits.load()), profile)
