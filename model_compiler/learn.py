"""From a plan to a float model: the teacher, the student that learned from it, both as ONNX files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from model_compiler.begin import ONNX_FILE, Begun, begin_models, sample_of
from model_compiler.compilation import Compilation
from model_compiler.data.samples import Samples
from model_compiler.errors import CompileError
from model_compiler.export import export_onnx
from model_compiler.learning.distil import Trial, choose_way, distil
from model_compiler.learning.judge import judge_by
from model_compiler.learning.prune import PruneReport, prune
from model_compiler.learning.teaching import Asked, NetTeacher, OnnxTeacher, Teacher, recall, remember
from model_compiler.learning.teaching import Source as Answers
from model_compiler.learning.train import train
from model_compiler.learning.ways import Way
from model_compiler.networks import digest_of_net, save_net, saved_net
from model_compiler.onnx_ends import fitted
from model_compiler.plan import Learning, Net, Training
from model_compiler.progress import Advance
from model_compiler.stages import file_digest
from model_compiler.yardstick import is_labelled

if TYPE_CHECKING:
    import torch

_TRIALS_FILE, _PRUNED_FILE = "trials.json", "pruned.json"


class Model(msgspec.Struct, frozen=True):
    """A float model as an ONNX file, and as the torch network it came from, where it came from one.

    `code`: of the network, as Net tells it.
    """

    onnx: Path
    net: torch.nn.Module | None = None
    code: str = ""

    @property
    def digest(self) -> str:
        return digest_of_net(self.net, self.code) if self.net is not None else file_digest(self.onnx)


class Lesson(msgspec.Struct, frozen=True):
    """`start` is to learn from `answers`; `inputs` are the digests of all that decides what becomes of it."""

    start: torch.nn.Module
    answers: Answers
    learning: Learning
    inputs: dict[str, Any]


class Learned(msgspec.Struct, frozen=True):
    """`student` is what becomes artifacts; `teacher` is what it is held against, None where it stands for itself.

    A student that learned from the teacher did so by `lesson`, in that `way`.
    """

    student: Model
    teacher: Model | None = None
    pruned: PruneReport | None = None
    trials: tuple[Trial, ...] = ()
    way: Way = "plain"
    lesson: Lesson | None = None

    @property
    def reference(self) -> Model:
        """What tells right from wrong where no label does."""
        return self.teacher or self.student


def learn(work: Compilation) -> Learned:
    """Trains, prunes and distils what the plan asks for. Raises CompileError for what cannot learn as it says."""
    plan = work.plan
    models = begin_models(work)
    begun = models.student
    teacher = _alone(work, models.teacher) if models.teacher is not None else None
    if plan.prune is not None:
        return _learn_pruned(work, teacher)
    if begun is None:
        if teacher is None:
            raise CompileError(f"{plan.reference}: the plan names neither a student nor a teacher.")
        return Learned(teacher)
    if teacher is None or begun.net is None or not begun.learns:
        return Learned(_alone(work, begun), teacher)
    return _learn_from(work, teacher, begun.net, begun.code, None)


def _alone(work: Compilation, begun: Begun) -> Model:
    """A model that needs no teacher: a finished one, or one that learns from the labels."""
    if begun.onnx is not None:
        return Model(begun.onnx)
    assert begun.net is not None  # It is the one or the other.
    if not begun.learns:
        return export_net(work, begun.net, begun.code)
    learning = work.plan.learning
    training = begun.source.training if isinstance(begun.source, Net) else None
    if training is None and learning is not None:
        training = Training(learning.schedule, learning.augment)
    if training is None:
        raise CompileError(f"{begun.source.name} has neither weights nor a schedule to be trained by.")
    return export_net(work, _trained(work, begun.net, begun.code, training), begun.code)


def _learn_pruned(work: Compilation, teacher: Model | None) -> Learned:
    """The student is what pruning leaves of the teacher, and learns again from the whole one."""
    asked = work.plan.prune
    if asked is None or teacher is None or teacher.net is None:
        raise CompileError(f"{work.plan.reference}: pruning needs a teacher that is a torch network, not an ONNX file.")
    whole, validation = teacher.net, work.plan.data.validation
    judged = asked.method == "sensitivity"

    def produce(directory: Path, advance: Advance) -> None:
        judge = judge_by(validation, work.plan.metric, work.plan.ends.outputs) if judged else None
        sample = sample_of(work.plan)
        pruned = prune(whole, sample, method=asked.method, share=asked.share, judge=judge, advance=advance)
        save_net(pruned.net, directory)
        (directory / _PRUNED_FILE).write_bytes(msgspec.json.encode(pruned.report))

    inputs = {"net": teacher.digest, "prune": msgspec.structs.asdict(asked)}
    judging = {"validation": validation.digest(), **work.plan.judged_by} if judged else {}
    kept = work.stage("prune", {**inputs, **judging}, produce)
    report = msgspec.json.decode((kept / _PRUNED_FILE).read_bytes(), type=PruneReport)
    return _learn_from(work, teacher, saved_net(kept), teacher.code, report)


def _learn_from(
    work: Compilation, teacher: Model, start: torch.nn.Module, code: str, pruned: PruneReport | None
) -> Learned:
    """`start` learns from the teacher: each way for a trial, the best of them in full."""
    learning = work.plan.learning
    if learning is None:
        raise CompileError(f"{work.plan.reference}: the student has neither weights nor a [learn] table to learn by.")
    lesson = _lesson(work, teacher, start, code, learning)
    trials = _tried(work, lesson)
    way = trials[0].way if trials else learning.ways[0]
    return Learned(export_net(work, _distilled(work, lesson, way), code), teacher, pruned, trials, way, lesson)


def _lesson(work: Compilation, teacher: Model, start: torch.nn.Module, code: str, learning: Learning) -> Lesson:
    """The teacher's answers to every view of the training samples, or the teacher itself where views are endless."""
    samples = _training_samples(work)
    taught = {"teacher": teacher.digest, "train": samples.digest(), "augment": msgspec.structs.asdict(learning.augment)}
    inputs = {**taught, "start": digest_of_net(start, code), "seed": work.plan.seed}
    if not learning.augment.views:
        return Lesson(start, Asked(_asked(work, teacher)), learning, inputs)

    def produce(directory: Path, advance: Advance) -> None:
        remember(_asked(work, teacher), samples, learning.augment, directory, advance=advance)

    return Lesson(start, recall(work.stage("teach", taught, produce)), learning, inputs)


def _tried(work: Compilation, lesson: Lesson) -> tuple[Trial, ...]:
    """Every way after its trial, the best first; nothing where there is but one."""
    learning, data = lesson.learning, work.plan.data
    trial = learning.trial
    if trial is None or len(learning.ways) == 1:
        return ()

    def produce(directory: Path, advance: Advance) -> None:
        trials = choose_way(
            lambda: copy.deepcopy(lesson.start),
            learning.ways,
            data.train,
            lesson.answers,
            data.validation,
            trial,
            seed=work.plan.seed,
            augment=learning.augment,
            metric=work.plan.metric,
            outputs=work.plan.ends.outputs,
            advance=advance,
        )
        (directory / _TRIALS_FILE).write_bytes(msgspec.json.encode(trials))

    told = {"ways": learning.ways, "trial": msgspec.structs.asdict(trial), "validation": data.validation.digest()}
    kept = work.stage("try ways", {**lesson.inputs, **told, **work.plan.judged_by}, produce)
    return msgspec.json.decode((kept / _TRIALS_FILE).read_bytes(), type=tuple[Trial, ...])


def _distilled(work: Compilation, lesson: Lesson, way: Way) -> torch.nn.Module:
    learning = lesson.learning

    def produce(directory: Path, advance: Advance) -> None:
        net = copy.deepcopy(lesson.start)
        distil(
            net,
            work.plan.data.train,
            lesson.answers,
            learning.schedule,
            way=way,
            seed=work.plan.seed,
            augment=learning.augment,
            advance=advance,
        )
        save_net(net, directory)

    inputs = {**lesson.inputs, "way": way, "schedule": msgspec.structs.asdict(learning.schedule)}
    return saved_net(work.stage("distil", inputs, produce))


def _trained(work: Compilation, net: torch.nn.Module, code: str, training: Training) -> torch.nn.Module:
    samples = _training_samples(work)
    if not is_labelled(samples):
        raise CompileError("Some training samples have no label, and there is no teacher to learn from. Label them.")

    def produce(directory: Path, advance: Advance) -> None:
        train(net, samples, training.schedule, seed=work.plan.seed, augment=training.augment, advance=advance)
        save_net(net, directory)

    inputs = {
        "start": digest_of_net(net, code),
        "train": samples.digest(),
        "schedule": msgspec.structs.asdict(training.schedule),
        "augment": msgspec.structs.asdict(training.augment),
        "seed": work.plan.seed,
    }
    return saved_net(work.stage("train", inputs, produce))


def _training_samples(work: Compilation) -> Samples:
    samples = work.plan.data.train
    if not len(samples):
        raise CompileError(f"{work.plan.reference}: there are no training samples. Name them in the [data] table.")
    return samples


def export_net(work: Compilation, net: torch.nn.Module, code: str) -> Model:
    """`net` as an ONNX file that says what it says. Raises CompileError where it does not."""
    sample = sample_of(work.plan)

    def produce(directory: Path, advance: Advance) -> None:
        export_onnx(net, sample, directory / ONNX_FILE, work.plan.ends)

    ends = msgspec.structs.asdict(work.plan.ends)
    inputs = {"net": digest_of_net(net, code), "ends": ends, "shape": sample.shape[1:]}
    return Model(work.stage("export", inputs, produce) / ONNX_FILE, net, code)


def _asked(work: Compilation, teacher: Model) -> Teacher:
    if teacher.net is not None:
        return NetTeacher(teacher.net, sample_of(work.plan))
    return OnnxTeacher(teacher.onnx, fitted(work.plan.ends, teacher.onnx))
