"""Distillation: the student follows the teacher in every way, repeatably, and the best way is found by trying."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError
from model_compiler.learning.augment import PLAIN, Augment
from model_compiler.learning.distil import Trial, choose_way, distil
from model_compiler.learning.judge import judge_by
from model_compiler.learning.teaching import Asked, NetTeacher, Source, Teaching, recall, remember
from model_compiler.learning.train import Schedule, run, seeded, train
from model_compiler.learning.ways import WAYS, Way, Weights, loss_of, why_not
from model_compiler.metrics import top_label_agreement

EVERY: tuple[Way, ...] = tuple(WAYS)
TAUGHT: tuple[Way, ...] = tuple(way for way in WAYS if way != "plain")
SHORT = Schedule(epochs=12, peak=0.03, batch=64)
CLASSES = 4


def net(width: int, seed: int = 0) -> nn.Sequential:
    with seeded(seed):
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, CLASSES))


def draw(n: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)


def truth(inputs: Floats) -> Floats:
    """Logits that bend: no linear layer gives them."""
    return np.stack([inputs[:, 0] * inputs[:, 1], inputs[:, 2], np.abs(inputs[:, 3]), -inputs[:, 4]], axis=1) * 3


def teaching_of(samples: Arrays) -> Teaching:
    """A teacher who knows the truth, and whose features are the truth and its size."""
    logits = truth(samples.inputs)
    features = np.concatenate([logits, np.abs(logits)], axis=1)
    return Teaching(logits[None], features[None])


def samples(n: int, seed: int, *, wrong: bool = False, labelled: bool = True) -> Arrays:
    inputs = draw(n, seed)
    logits = truth(inputs)
    labels = logits.argmin(axis=1) if wrong else logits.argmax(axis=1)
    return Arrays(inputs, labels if labelled else np.full(n, -1))


TEST = samples(500, 99)
RIGHT = judge_by(TEST)


def weights_of(student: nn.Module) -> list[bytes]:
    return [parameter.detach().numpy().tobytes() for parameter in student.parameters()]


@pytest.mark.parametrize("way", TAUGHT)
def test_a_student_follows_its_teacher_where_there_are_no_labels(way: Way) -> None:
    unlabelled = samples(512, 0, labelled=False)
    student = net(32)
    before = RIGHT(student)
    distil(student, unlabelled, teaching_of(unlabelled), SHORT, way=way, seed=0)
    assert not student.training
    assert before < 0.5
    assert RIGHT(student) > 0.8


@pytest.mark.parametrize("way", EVERY)
def test_the_weights_decide_whom_the_student_believes(way: Way) -> None:
    """Every label is the teacher's last choice."""
    wrong = samples(512, 0, wrong=True)
    for given, least, most in ((Weights(labels=0, teacher=1, hints=1), 0.8, 1.0), (Weights(labels=1), 0.0, 0.1)):
        if way == "plain" and given.labels == 0:
            continue
        student = net(32)
        distil(student, wrong, teaching_of(wrong), SHORT, way=way, weights=given, seed=0)
        assert least <= RIGHT(student) <= most


def test_the_control_is_plain_training() -> None:
    data = samples(256, 0)
    control, trained = net(8), net(8)
    distil(control, data, teaching_of(data), SHORT, way="plain", seed=3)
    train(trained, data, SHORT, seed=3)
    for mine, theirs in zip(control.parameters(), trained.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("way", EVERY)
def test_two_runs_give_the_same_weights_and_leave_torchs_state_alone(way: Way) -> None:
    data = samples(256, 0)
    state = torch.random.get_rng_state()
    students = [net(8) for _ in range(3)]
    for student, seed in zip(students, (5, 5, 6), strict=True):
        distil(student, data, teaching_of(data), Schedule(epochs=2, peak=0.03, batch=64), way=way, seed=seed)
    first, second, other = (weights_of(student) for student in students)
    assert first == second != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_some_labels_are_used_where_they_are() -> None:
    """Half of the samples have labels, all of them wrong: a student told by labels alone believes them."""
    data = samples(512, 0, wrong=True)
    data.labels[::2] = -1
    student = net(32)
    distil(student, data, teaching_of(data), SHORT, way="plain", seed=0)
    assert RIGHT(student) < 0.1


def test_labels_that_are_no_class_numbers_count_as_unknown() -> None:
    data = samples(256, 0)
    boxes = Arrays(data.inputs, np.random.default_rng(0).random((256, 4)))
    student, unlabelled = net(8), net(8)
    distil(student, boxes, teaching_of(data), SHORT, way="kd", seed=0)
    distil(unlabelled, samples(256, 0, labelled=False), teaching_of(data), SHORT, way="kd", seed=0)
    assert weights_of(student) == weights_of(unlabelled)


def test_hints_draw_the_students_features_to_the_teachers() -> None:
    data = samples(512, 0)
    teaching = teaching_of(data)

    def unexplained(hints: float) -> float:
        """What is left of the teacher's features after the best linear map of the student's."""
        student = net(32)
        given = Weights(labels=0.1, teacher=0.9, hints=hints)
        distil(student, data, teaching, SHORT, way="hints", weights=given, seed=0)
        with torch.inference_mode():
            mine = student[1](student[0](torch.from_numpy(TEST.inputs))).numpy()
        theirs = np.concatenate([truth(TEST.inputs), np.abs(truth(TEST.inputs))], axis=1)
        mine = np.concatenate([mine, np.ones((len(mine), 1), np.float32)], axis=1)
        rest = theirs - mine @ np.linalg.lstsq(mine, theirs, rcond=None)[0]
        return float((rest**2).sum() / (theirs**2).sum())

    assert unexplained(10.0) < 0.8 * unexplained(0.0)


def test_the_regressor_is_dropped() -> None:
    data = samples(128, 0)
    student = net(8)
    distil(student, data, teaching_of(data), Schedule(epochs=1, peak=0.01, batch=64), way="hints", seed=0)
    assert [type(layer) for layer in student] == [nn.Linear, nn.ReLU, nn.Linear]
    assert not any(layer._forward_pre_hooks for layer in student.modules())


def test_a_teacher_asked_on_line_teaches_what_it_would_have_been_remembered_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = Arrays(rng.standard_normal((128, 1, 4, 4)).astype(np.float32), rng.integers(0, CLASSES, 128))
    augment = Augment(flip=True, shift=1, views=2)
    with seeded(1):
        teacher = NetTeacher(nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, CLASSES)), data.inputs[:1])
    remember(teacher, data, augment, tmp_path)
    students = []
    sources: tuple[Source, ...] = (recall(tmp_path), Asked(teacher))
    for source in sources:
        with seeded(0):
            student = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
        distil(student, data, source, Schedule(epochs=4, peak=0.01, batch=32), way="kd", seed=0, augment=augment)
        students.append(student[1].weight.detach().numpy())
    assert np.allclose(students[0], students[1], atol=1e-5)


def test_endless_views_are_taught_on_line() -> None:
    rng = np.random.default_rng(0)
    data = Arrays(rng.standard_normal((64, 1, 4, 4)).astype(np.float32), np.full(64, -1))
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, CLASSES))
    asked = Asked(NetTeacher(teacher, data.inputs[:1]))
    before = weights_of(teacher)
    schedule = Schedule(epochs=3, peak=0.01, batch=32)
    distil(student, data, asked, schedule, way="hints", seed=0, augment=Augment(shift=1, views=0))
    assert weights_of(teacher) == before
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_ways_loss_serves_a_training_loop_of_ones_own() -> None:
    data = samples(256, 0)
    mine, theirs = net(8), net(8)
    run(mine, data, loss_of(data, teaching_of(data), "dkd"), SHORT, seed=0)
    distil(theirs, data, teaching_of(data), SHORT, way="dkd", seed=0)
    assert weights_of(mine) == weights_of(theirs)


def test_the_best_way_comes_first_and_starts_where_the_others_started() -> None:
    """The labels mislead, so that the control loses to every teacher's way."""
    data = samples(512, 0, wrong=True)
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(net(32, seed=len(built)))
        return built[-1]

    done: list[float] = []
    trials = choose_way(
        build, ("plain", "kd", "dist"), data, teaching_of(data), TEST, SHORT, seed=0, advance=done.append
    )
    assert len(built) == 1
    assert weights_of(built[0]) == weights_of(net(32))
    assert [trial.way for trial in trials][-1] == "plain"
    assert [trial.score for trial in trials] == sorted((trial.score for trial in trials), reverse=True)
    assert trials[0].score > 0.7
    assert done == sorted(done)
    assert done[-1] == 1
    for trial in trials:
        student = net(32)
        distil(student, data, teaching_of(data), SHORT, way=trial.way, seed=0)
        assert RIGHT(student) == trial.score


def test_the_first_named_of_equal_ways_wins() -> None:
    data = samples(64, 0)
    trials = choose_way(
        lambda: net(4),
        ("dist", "kd", "plain"),
        data,
        teaching_of(data),
        TEST,
        SHORT,
        seed=0,
        metric=lambda out, labels: 0.5,
    )
    assert trials == (Trial("dist", 0.5), Trial("kd", 0.5), Trial("plain", 0.5))


def test_ways_that_cannot_be_gone_are_left_out_with_a_reason() -> None:
    unlabelled = samples(64, 0, labelled=False)
    blind = Teaching(teaching_of(unlabelled).logits)
    metric = top_label_agreement("logits", truth(TEST.inputs))
    trials = choose_way(lambda: net(4), EVERY, unlabelled, blind, TEST, SHORT, seed=0, metric=metric)
    assert {trial.way for trial in trials} == {"kd", "dkd", "dist"}
    assert "no sample has a label" in why_not("plain", unlabelled, blind)
    assert "shows no features" in why_not("hints", unlabelled, blind)
    for way in ("plain", "hints"):
        with pytest.raises(CompileError, match=r"cannot be gone.*Choose another"):
            distil(net(4), unlabelled, blind, SHORT, way=way, seed=0)
    with pytest.raises(CompileError, match=r"plain: no sample has a label.*Name one of"):
        choose_way(lambda: net(4), ("plain",), unlabelled, blind, TEST, SHORT, seed=0)
    with pytest.raises(CompileError, match="Accuracy needs a label"):
        choose_way(lambda: net(4), ("kd",), unlabelled, blind, unlabelled, SHORT, seed=0)


def test_what_does_not_fit_is_refused_before_any_training() -> None:
    data = samples(64, 0)
    teaching = teaching_of(data)
    with pytest.raises(CompileError, match="again for the student's views"):
        distil(net(4), data, teaching, SHORT, seed=0, augment=Augment(views=2))
    with pytest.raises(CompileError, match="again for the student's samples"):
        distil(net(4), samples(65, 0), teaching, SHORT, seed=0)
    with pytest.raises(CompileError, match="both the same classes"):
        distil(nn.Linear(6, 5), data, teaching, SHORT, seed=0)
    with pytest.raises(CompileError, match="label 7"):
        distil(net(4), Arrays(data.inputs, np.full(64, 7)), teaching, SHORT, seed=0, augment=PLAIN)
    bare = nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, CLASSES, 1), nn.Flatten())
    with pytest.raises(CompileError, match="linear layer"):
        distil(bare, data, teaching, SHORT, way="hints", seed=0)


def test_weights_that_pruning_left_at_zero_stay_there() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((128, 4)).astype(np.float32)
    samples = Arrays(inputs, (inputs[:, 0] > 0).astype(np.int64))
    student = torch.nn.Linear(4, 2)
    with torch.no_grad():
        student.weight[:, 2:] = 0.0
    before = student.weight.detach().clone()
    distil(student, samples, Teaching(inputs[None, :, :2]), Schedule(epochs=2, peak=0.1), way="kd", seed=0)
    assert not student.weight[:, 2:].any()
    assert not torch.equal(student.weight[:, :2], before[:, :2])
