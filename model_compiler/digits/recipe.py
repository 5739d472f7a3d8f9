"""The digits recipe: a cloud bundle, an edge bundle, and a bad second edge version that only the field unmasks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from contracts.boards import BOARDS
from contracts.manifest import Preprocess
from model_compiler.data.samples import Arrays, Data, to_samples
from model_compiler.digits import camera, nets, splits
from model_compiler.digits.splits import LABELS, Digits, Part
from model_compiler.learning.train import Schedule
from model_compiler.pack import Packed
from model_compiler.pipeline import compile_bundle
from model_compiler.plan import ArtifactPlan, Learning, Net, OnnxFile, Plan, Quantizing, Training
from model_compiler.progress import Progress, silent

MODEL = "digits"
CLOUD, EDGE, BAD = "digits-cloud@1", "digits-edge@1", "digits-edge@2"
FP32_FILE, INT8_FILE = "fp32.onnx", "cpu.u8s8.onnx"
PREPROCESS = Preprocess(width=32, height=32, colour="grey", scale=1 / 255, mean=(0.25,), std=(0.25,))

_CPUS = tuple(target for target, board in BOARDS.items() if board.family == "cpu")
_CLOUD_ARTIFACTS = (ArtifactPlan(FP32_FILE, "fp32", tuple(BOARDS)),)
_EDGE_ARTIFACTS = (ArtifactPlan(INT8_FILE, "int8", _CPUS), ArtifactPlan(FP32_FILE, "fp32", tuple(BOARDS)))

_QUANTIZING = Quantizing(methods=("minmax",), equalize=False, correct_bias=False, fall_back=False)
"""Enough for these networks; the search for more would take longer than all the rest of the demo's compilation."""


class Profile(msgspec.Struct, frozen=True):
    """How much work goes in. A draw is one picture of every digit of a part."""

    train_draws: int
    teacher_width: int
    teacher: Schedule
    student: Schedule
    clean_student: Schedule
    fit_draws: int = 4
    test_draws: int = 3


FULL = Profile(
    train_draws=16,
    teacher_width=32,
    teacher=Schedule(epochs=2, peak=3e-3),
    student=Schedule(epochs=4, peak=5e-3),
    clean_student=Schedule(epochs=40, peak=5e-3),
)
QUICK = Profile(
    train_draws=4,
    teacher_width=8,
    teacher=Schedule(epochs=3, peak=1e-2, batch=64),
    student=Schedule(epochs=4, peak=1e-2, batch=64),
    clean_student=Schedule(epochs=12, peak=1e-2, batch=64),
)


class DigitsBundles(msgspec.Struct, frozen=True):
    """`bad` is the second version of the edge bundle."""

    cloud: Packed
    edge: Packed
    bad: Packed


def compile_digits(out: Path, *, profile: Profile = FULL, progress: Progress = silent) -> DigitsBundles:
    """Compiles the three bundles into `out`/NAME@VERSION."""
    parts = splits.split(splits.load())
    unseen = f"{len(parts['test'])} digits that nothing was fitted on"
    how = f"accuracy, agreement, escalation: {profile.test_draws} camera frames of each of {unseen}"
    how_scanned = f"accuracy, agreement, escalation: one clean scan of each of {unseen}"
    seen, scanned = camera_data(parts, profile), clean_data(parts)
    make = partial(compile_bundle, progress=progress, report=False)
    cloud = make(_cloud_plan(seen, profile, how), out / CLOUD)
    edge = make(_edge_plan("1", seen, profile.student, cloud, how), out / EDGE)
    bad = make(_edge_plan("2", scanned, profile.clean_student, cloud, how_scanned), out / BAD)
    return DigitsBundles(cloud, edge, bad)


def compile_quick(out: Path, *, progress: Progress = silent) -> DigitsBundles:
    """The same bundles after little training, for tests: seconds instead of a minute, and less accurate."""
    return compile_digits(out, profile=QUICK, progress=progress)


def camera_data(parts: dict[Part, Digits], profile: Profile) -> Data:
    """What the camera sends. The threshold's part is drawn once a digit, so that its samples are independent."""
    return Data(
        train=_shoot(parts["train"], profile.train_draws, seed=1),
        ranges=_shoot(parts["fit"], 1, seed=2),
        validation=_shoot(parts["fit"], 2, seed=6),
        fit=_shoot(parts["fit"], profile.fit_draws, seed=3),
        threshold=_shoot(parts["threshold"], 1, seed=4),
        test=_shoot(parts["test"], profile.test_draws, seed=5),
    )


def clean_data(parts: dict[Part, Digits]) -> Data:
    """The same parts as plain scans: what a team without a camera would have compiled on."""
    scans = {
        part: to_samples(camera.clean(digits.pictures), digits.labels, PREPROCESS) for part, digits in parts.items()
    }
    return Data(
        train=scans["train"],
        ranges=scans["fit"],
        validation=scans["fit"],
        fit=scans["fit"],
        threshold=scans["threshold"],
        test=scans["test"],
    )


def _shoot(digits: Digits, draws: int, *, seed: int) -> Arrays:
    repeated = digits.take(np.tile(np.arange(len(digits)), draws))
    return to_samples(camera.shoot(repeated.pictures, np.random.default_rng(seed)), repeated.labels, PREPROCESS)


def _cloud_plan(data: Data, profile: Profile, how: str) -> Plan:
    return Plan(
        name="digits-cloud",
        version="1",
        model=MODEL,
        task="classification",
        tier="cloud",
        data=data,
        artifacts=_CLOUD_ARTIFACTS,
        how=how,
        student=Net("digits teacher", lambda: nets.teacher(profile.teacher_width), training=Training(profile.teacher)),
        preprocess=PREPROCESS,
        labels=LABELS,
    )


def _edge_plan(version: str, data: Data, schedule: Schedule, cloud: Packed, how: str) -> Plan:
    return Plan(
        name="digits-edge",
        version=version,
        model=MODEL,
        task="classification",
        tier="edge",
        data=data,
        artifacts=_EDGE_ARTIFACTS,
        how=how,
        student=Net("digits student", nets.student),
        teacher=OnnxFile(cloud.first_artifact),
        learning=Learning(schedule),
        quantizing=_QUANTIZING,
        cloud=cloud,
        preprocess=PREPROCESS,
        labels=LABELS,
    )
