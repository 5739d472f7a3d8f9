"""What a teacher says of the training samples: remembered once for every view, or asked on line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from contracts.decoding import UNREADABLE
from model_compiler.data.samples import Floats, Numbers, Samples, first
from model_compiler.errors import CompileError
from model_compiler.learning.augment import PLAIN, Augment, View
from model_compiler.learning.features import last_linear, tapped
from model_compiler.learning.judge import evaluating
from model_compiler.learning.train import VIEW_SEED, answer_of, channels_last, threads
from model_compiler.progress import Advance, unwatched
from model_compiler.replay import Ends, open_engine

if TYPE_CHECKING:
    import torch

_BATCH = 256
_LOGITS, _FEATURES, _AUGMENT = "logits.npy", "features.npy", "augment.json"


class Answers(NamedTuple):
    """Of one batch: `logits` (b, classes) float32, `features` (b, f) float32 where the teacher shows them."""

    logits: torch.Tensor
    features: torch.Tensor | None


class Teacher(Protocol):
    """Answers to inputs (b, ...) float32, without gradients."""

    def __call__(self, inputs: torch.Tensor) -> Answers: ...


class Source(Protocol):
    """Where a student's training gets the teacher's answers from: Teaching or Asked."""

    def answers(self, inputs: torch.Tensor, rows: Numbers, view: int) -> Answers:
        """To `inputs`, which are the view numbered `view` of the samples `rows`."""
        ...

    def fits(self, samples: Samples, augment: Augment) -> None:
        """Raises CompileError when it has no answers to these views of these samples."""
        ...


class Teaching(msgspec.Struct, frozen=True):
    """Remembered answers to every view that `augment` shows of n samples.

    `logits`: (views, n, classes) float32; `features`: (views, n, f) float16 or float32, what went into the teacher's
    last linear layer, or None. Both may be memory maps.
    """

    logits: Floats
    features: npt.NDArray[np.float16] | Floats | None = None
    augment: Augment = PLAIN

    def answers(self, inputs: torch.Tensor, rows: Numbers, view: int) -> Answers:
        features = None if self.features is None else _tensor(self.features[view, rows])
        return Answers(_tensor(self.logits[view, rows]), features)

    def fits(self, samples: Samples, augment: Augment) -> None:
        if augment != self.augment:
            raise CompileError(
                f"The teacher's answers are to views by {self.augment}, the student is to see {augment}. Remember them "
                "again for the student's views."
            )
        views, rows = self.logits.shape[:2]
        if (views, rows) != (augment.views, len(samples)):
            raise CompileError(
                f"The teacher's answers are to {views} views of {rows} samples, the student is to see {augment.views} "
                f"of {len(samples)}. Remember them again for the student's samples."
            )


class Asked(msgspec.Struct, frozen=True):
    """A teacher asked about every batch: for endless views, whose answers cannot be remembered.

    Training is slower by the teacher's own time, every epoch anew.
    """

    teacher: Teacher

    def answers(self, inputs: torch.Tensor, rows: Numbers, view: int) -> Answers:
        return self.teacher(inputs)

    def fits(self, samples: Samples, augment: Augment) -> None:
        """It answers anything."""


class NetTeacher:
    """A torch network; with `features`, it also tells what goes into its last linear layer, if it has one."""

    def __init__(self, net: torch.nn.Module, sample: Floats, *, features: bool = True) -> None:
        """`sample`: (n >= 1, ...) float32, inputs as `net` takes them."""
        self._net = net
        self._last = last_linear(net, sample) if features else None

    def __call__(self, inputs: torch.Tensor) -> Answers:
        import torch

        with evaluating(self._net), torch.no_grad():
            if self._last is None:
                return Answers(answer_of(self._net(inputs)), None)
            with tapped(self._last) as tap:
                logits = answer_of(self._net(inputs))
            return Answers(logits, tap.features)


class OnnxTeacher:
    """An ONNX file, which tells its answering output alone."""

    def __init__(self, artifact: Path, ends: Ends) -> None:
        self._engine = open_engine(artifact)
        self._ends = ends

    def __call__(self, inputs: torch.Tensor) -> Answers:
        import torch

        array = inputs.numpy()
        size = self._ends.batch or len(array)
        parts = [self._run(array[start : start + size], size) for start in range(0, len(array), size)]
        return Answers(torch.from_numpy(np.concatenate(parts).astype(np.float32, copy=False)), None)

    def _run(self, part: Floats, size: int) -> Floats:
        """A model of a fixed batch gets its last row again where rows are missing."""
        full = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        answers: Floats = self._engine.run({self._ends.input: full})[self._ends.output]
        return answers[: len(part)]


def remember(
    teacher: Teacher, samples: Samples, augment: Augment, directory: Path, *, advance: Advance = unwatched
) -> None:
    """Asks `teacher` about every view of `samples`, once, on one thread, and writes the answers into `directory`.

    Logits are kept as float32, so that they are the teacher's very own; features, of which there are many more, as
    float16: they are matched to a few percent, and rounded by less than a tenth of one. Equal inputs give equal bytes.
    Raises CompileError for endless views, and for answers that are not finite (n, classes).
    """
    if augment.views == 0:
        raise CompileError(
            "Endless views (views = 0) cannot be remembered. Ask the teacher on line, or set views to a few, such as 8."
        )
    directory.mkdir(parents=True, exist_ok=True)
    for name in (_AUGMENT, _LOGITS, _FEATURES):
        (directory / name).unlink(missing_ok=True)
    with threads(1):
        _write(teacher, samples, augment, directory, advance)
    # Last: without it nothing is recalled from a directory whose writing was cut short.
    (directory / _AUGMENT).write_bytes(msgspec.json.encode(augment, order="sorted"))


def recall(directory: Path) -> Teaching:
    """What `remember` wrote there, memory-mapped. Raises CompileError when it is missing or unreadable."""
    try:
        augment = msgspec.json.decode((directory / _AUGMENT).read_bytes(), type=Augment)
        logits = np.load(directory / _LOGITS, mmap_mode="r")
        kept = directory / _FEATURES
        return Teaching(logits, np.load(kept, mmap_mode="r") if kept.exists() else None, augment)
    except (OSError, ValueError, *UNREADABLE) as error:
        raise CompileError(
            f"{directory} holds no teacher's answers that can be read ({error}). Let the teacher be asked again."
        ) from error


def _write(teacher: Teacher, samples: Samples, augment: Augment, directory: Path, advance: Advance) -> None:
    import torch

    shape = (augment.views, len(samples))
    opening = _ask(teacher, torch.from_numpy(first(samples, 1)))
    logits = _map(directory / _LOGITS, np.float32, (*shape, opening.logits.shape[1]))
    features = None
    if opening.features is not None:
        features = _map(directory / _FEATURES, np.float16, (*shape, opening.features.shape[1]))
    for number in range(augment.views):
        view = View(augment, len(samples), number, seed=VIEW_SEED)
        for start in range(0, len(samples), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(samples)))
            answers = _ask(teacher, channels_last(view.apply(torch.from_numpy(samples.batch(rows)), rows)))
            logits[number, rows] = answers.logits.numpy()
            if features is not None and answers.features is not None:
                features[number, rows] = answers.features.clamp(-_LARGEST, _LARGEST).numpy()
            advance((number * len(samples) + int(rows[-1]) + 1) / (augment.views * len(samples)))
    for written in (logits, features):
        if written is not None:
            written.flush()


_LARGEST = float(np.finfo(np.float16).max)


def _ask(teacher: Teacher, inputs: torch.Tensor) -> Answers:
    answers = teacher(inputs)
    if answers.logits.ndim != 2 or not bool(answers.logits.isfinite().all()):
        raise CompileError(
            f"The teacher answers {tuple(answers.logits.shape)} to {len(inputs)} samples, not finite ({len(inputs)}, "
            "classes). Only classifiers teach by their logits: name the logits as the first output."
        )
    return answers


def _map(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _tensor(values: npt.NDArray[np.floating]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.asarray(values, np.float32))
