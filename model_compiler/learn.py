"""From a plan to a float model: the teacher, the student that learned from it, both as ONNX files."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from model_compiler.compilation import Compilation
from model_compiler.data.samples import Floats, first
from model_compiler.errors import CompileError
from model_compiler.export import export_onnx, import_onnx
from model_compiler.imports import source_of
from model_compiler.learning.distil import Trial, choose_way, distil
from model_compiler.learning.judge import judge_by
from model_compiler.learning.prune import PruneReport, prune
from model_compiler.learning.teaching import Asked, NetTeacher, OnnxTeacher, Teacher, recall, remember
from model_compiler.learning.teaching import Source as Answers
from model_compiler.learning.train import seeded, train
from model_compiler.learning.ways import Way
from model_compiler.onnx_ends import ends_of
from model_compiler.plan import Learning, Net, OnnxFile, Plan, Source, Training
from model_compiler.progress import Advance
from model_compiler.stages import file_digest

if TYPE_CHECKING:
    import torch

NET_FILE, ONNX_FILE = "net.pt", "model.onnx"
_TRIALS_FILE, _PRUNED_FILE = "trials.json", "pruned.json"
_SAMPLE_ROWS = 2
"""Not 1: torch.export would make a batch of 1 a constant."""


class Model(msgspec.Struct, frozen=True):
    """A float model as an ONNX file, and as the torch network it came from, where it came from one."""

    onnx: Path
    net: torch.nn.Module | None = None


class Learned(msgspec.Struct, frozen=True):
    """`student` is what becomes artifacts; `teacher` is what it is held against, None where it stands for itself."""

    student: Model
    teacher: Model | None = None
    pruned: PruneReport | None = None
    trials: tuple[Trial, ...] = ()
    way: Way = "plain"


def learn(work: Compilation) -> Learned:
    """Trains, prunes and distils what the plan asks for. Raises CompileError for what cannot learn as it says."""
    plan = work.plan
    teacher = _alone(work, plan.teacher) if plan.teacher is not None else None
    if plan.prune is not None:
        return _learn_pruned(work, teacher)
    if plan.student is None:
        if teacher is None:
            raise CompileError(f"{plan.reference}: the plan names neither a student nor a teacher.")
        return Learned(teacher)
    if teacher is None or not _learns(plan.student):
        return Learned(_alone(work, plan.student), teacher)
    return _learn_from(work, teacher, _build(work, plan.student), None)


def digest_of_net(net: torch.nn.Module) -> str:
    """Hex SHA-256 of the form and of every weight and buffer."""
    sha256 = hashlib.sha256(repr(net).encode())
    for name, values in net.state_dict().items():
        sha256.update(f"{name}{tuple(values.shape)}{values.dtype}".encode())
        sha256.update(values.detach().contiguous().numpy().tobytes())
    return sha256.hexdigest()


def _learns(source: Source) -> bool:
    return isinstance(source, Net) and source.weights is None


def _alone(work: Compilation, source: Source) -> Model:
    """A model that needs no teacher: a finished one, or one that learns from the labels."""
    if isinstance(source, OnnxFile):
        return Model(_imported(work, source.path))
    net = _build(work, source)
    if source.weights is not None:
        return export_net(work, _filled(net, source.weights))
    learning = work.plan.learning
    training = source.training or (Training(learning.schedule, learning.augment) if learning is not None else None)
    if training is None:
        raise CompileError(f"{work.plan.reference}: a network has neither weights nor a schedule to be trained by.")
    return export_net(work, _trained(work, net, training))


def _learn_pruned(work: Compilation, teacher: Model | None) -> Learned:
    """The student is what pruning leaves of the teacher, and learns again from the whole one."""
    asked = work.plan.prune
    if asked is None or teacher is None or teacher.net is None:
        raise CompileError(f"{work.plan.reference}: pruning needs a teacher that is a torch network, not an ONNX file.")
    whole, validation = teacher.net, work.plan.data.validation

    def produce(directory: Path, advance: Advance) -> None:
        judge = None
        if asked.method == "sensitivity":
            judge = judge_by(validation, work.plan.metric, work.plan.ends.outputs)
        sample = sample_of(work.plan)
        pruned = prune(whole, sample, method=asked.method, share=asked.share, judge=judge, advance=advance)
        save_net(pruned.net, directory)
        (directory / _PRUNED_FILE).write_bytes(msgspec.json.encode(pruned.report))

    inputs = {"net": digest_of_net(whole), "prune": msgspec.structs.asdict(asked), "validation": validation.digest()}
    kept = work.stage("prune", inputs, produce)
    report = msgspec.json.decode((kept / _PRUNED_FILE).read_bytes(), type=PruneReport)
    return _learn_from(work, teacher, saved_net(kept), report)


def _learn_from(work: Compilation, teacher: Model, start: torch.nn.Module, pruned: PruneReport | None) -> Learned:
    """`start` learns from the teacher: each way for a trial, the best of them in full."""
    learning = work.plan.learning
    if learning is None:
        raise CompileError(f"{work.plan.reference}: the student has neither weights nor a [learn] table to learn by.")
    lesson = _lesson(work, teacher, start, learning)
    trials = _tried(work, lesson)
    way = trials[0].way if trials else learning.ways[0]
    return Learned(export_net(work, _distilled(work, lesson, way)), teacher, pruned, trials, way)


class Lesson(msgspec.Struct, frozen=True):
    """`start` is to learn from `answers`; `inputs` are the digests of all that decides what becomes of it."""

    start: torch.nn.Module
    answers: Answers
    learning: Learning
    inputs: dict[str, Any]


def _lesson(work: Compilation, teacher: Model, start: torch.nn.Module, learning: Learning) -> Lesson:
    """The teacher's answers to every view of the training samples, or the teacher itself where views are endless."""
    samples = work.plan.data.train
    if not len(samples):
        raise CompileError(f"{work.plan.reference}: there are no training samples. Name them in the [data] table.")
    augment = {"augment": msgspec.structs.asdict(learning.augment)}
    taught = {"teacher": _digest_of(teacher), "train": samples.digest(), **augment}
    inputs = {**taught, "start": digest_of_net(start), "seed": work.plan.seed}
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
    kept = work.stage("try ways", {**lesson.inputs, **told, "metric": work.plan.metric_name}, produce)
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


def _trained(work: Compilation, net: torch.nn.Module, training: Training) -> torch.nn.Module:
    samples = work.plan.data.train
    if not len(samples):
        raise CompileError(f"{work.plan.reference}: there are no training samples. Name them in the [data] table.")

    def produce(directory: Path, advance: Advance) -> None:
        train(net, samples, training.schedule, seed=work.plan.seed, augment=training.augment, advance=advance)
        save_net(net, directory)

    inputs = {
        "start": digest_of_net(net),
        "train": samples.digest(),
        "schedule": msgspec.structs.asdict(training.schedule),
        "augment": msgspec.structs.asdict(training.augment),
        "seed": work.plan.seed,
    }
    return saved_net(work.stage("train", inputs, produce))


def export_net(work: Compilation, net: torch.nn.Module) -> Model:
    """`net` as an ONNX file that says what it says. Raises CompileError where it does not."""

    def produce(directory: Path, advance: Advance) -> None:
        export_onnx(net, sample_of(work.plan), directory / ONNX_FILE, work.plan.ends)

    inputs = {"net": digest_of_net(net), "source": _source_of(net), "ends": msgspec.structs.asdict(work.plan.ends)}
    return Model(work.stage("export", inputs, produce) / ONNX_FILE, net)


def _imported(work: Compilation, path: Path) -> Path:
    def produce(directory: Path, advance: Advance) -> None:
        import_onnx(path, directory / ONNX_FILE, work.plan.ends, sample_of(work.plan)[: work.plan.ends.batch])

    return work.stage("import", {"onnx": file_digest(path)}, produce) / ONNX_FILE


def _build(work: Compilation, source: Source) -> torch.nn.Module:
    """A network with its first weights, which the seed decides."""
    import torch

    if not isinstance(source, Net):
        raise CompileError(f"{work.plan.reference}: an ONNX file cannot be trained. Give a torch network.")
    with seeded(work.plan.seed):
        net = source.build()
    if not isinstance(net, torch.nn.Module):
        raise CompileError(f"{source.build} gave {type(net).__name__}, not a torch.nn.Module.")
    return net


def _filled(net: torch.nn.Module, weights: Path) -> torch.nn.Module:
    """`net` with safetensors `weights`, in eval mode."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        net.load_state_dict(load_file(weights))
    except (OSError, SafetensorError) as error:
        raise CompileError(f"{weights} is no safetensors file: {error}. Save it with safetensors.torch.") from error
    except RuntimeError as error:
        raise CompileError(f"{weights} does not fit the network: {str(error).strip()[:400]}") from error
    return net.eval()


def _asked(work: Compilation, teacher: Model) -> Teacher:
    if teacher.net is not None:
        return NetTeacher(teacher.net, sample_of(work.plan))
    return OnnxTeacher(teacher.onnx, ends_of(teacher.onnx))


def _digest_of(model: Model) -> str:
    return digest_of_net(model.net) if model.net is not None else file_digest(model.onnx)


def sample_of(plan: Plan) -> Floats:
    """A few real inputs, whichever part has some."""
    data = plan.data
    parts = (data.fit, data.train, data.validation, data.ranges, data.test)
    return first(next(part for part in parts if len(part)), _SAMPLE_ROWS)


def _source_of(net: torch.nn.Module) -> str:
    return hashlib.sha256(source_of(type(net)).encode()).hexdigest()


def save_net(net: torch.nn.Module, directory: Path) -> None:
    """The whole module, since pruning changes its form; read back only from the user's own stages."""
    import torch

    torch.save(net, directory / NET_FILE)


def saved_net(directory: Path) -> torch.nn.Module:
    import torch

    net = torch.load(directory / NET_FILE, weights_only=False)
    assert isinstance(net, torch.nn.Module)  # `_save` wrote it
    return net.eval()
