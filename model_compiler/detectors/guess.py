"""What a detector's head is, as far as its outputs tell: what cannot be known of them has to be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from contracts.manifest import Detector, DetectorKind, Preprocess
from model_compiler.detectors.told import Told
from model_compiler.errors import CompileError
from model_compiler.label_lists import COCO80
from runtime.serving.engines.tensors import Array

T = TypeVar("T")
_STRIDES = (8, 16, 32, 64, 128)
_TENSORFLOW = ("detection_boxes", "detection_scores", "detection_classes")
"""Outputs of TensorFlow's Object Detection API, whose conventions are known: yxyx, shares of the picture, classes from
1, suppressed already."""
_SHARES = 2.0
"""Boxes in shares of a picture reach a little beyond it; in pixels, far beyond this."""


class Head(msgspec.Struct, frozen=True):
    """`outputs` that it reads, the first one first; `guessed`: what was found out, for people."""

    kind: DetectorKind
    detector: Detector
    outputs: tuple[str, ...]
    guessed: tuple[str, ...]


class Asked(msgspec.Struct, frozen=True):
    """`seen`: what the graph gives for a few pictures, every output by its name."""

    file: Path
    told: Told
    seen: Mapping[str, Array]
    labels: tuple[str, ...]
    pre: Preprocess


def head_of(asked: Asked) -> Head:
    """Raises CompileError that names what has to be told, and where."""
    guess = _Guess(asked)
    outputs = {"yolo": _yolo, "ssd": _ssd, "nanodet": _nanodet}[asked.told.kind](guess)
    detector = msgspec.convert({**guess.fields, **guess.given}, Detector)
    return Head(asked.told.kind, detector, outputs, tuple(guess.notes))


class _Guess:
    """Fields of a Detector: what was told as it is, anything else found out and noted."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.seen, self.labels, self.pre = asked.seen, asked.labels, asked.pre
        self.given = {name: value for name, value in asked.told.fields.items() if name != "output"}
        self.output: str = asked.told.fields.get("output", "")
        self.fields: dict[str, Any] = {}
        self.notes: list[str] = []
        named = (
            self.output,
            *self.given.get("boxes", ()),
            *self.given.get("scores", ()),
            self.given.get("classes", ""),
        )
        for name in filter(None, named):
            if name not in self.seen:
                raise CompileError(f"--head: {asked.file} has no output {name!r}. It has {', '.join(self.seen)}.")

    def take(self, field: str, find: Callable[[], T | None], why: str) -> T:
        """`find` gives None where it cannot be known, for the reason `why`."""
        if field in self.given:
            told: T = self.given[field]
            return told
        found = find()
        if found is None:
            raise self.refuse(field, why)
        self.fields[field] = found
        self.notes.append(f"{field} = {_written(found)}")
        return found

    def refuse(self, field: str, why: str) -> CompileError:
        kind = self.asked.told.kind
        return CompileError(
            f'{self.asked.file}: {why}. Write {field} = … into a TOML file that begins with kind = "{kind}", and give '
            "it as --head FILE.toml; docs/bundle.md has all of its keys."
        )

    def of_rank(self, rank: int) -> dict[str, Array]:
        return {name: array for name, array in self.seen.items() if array.ndim == rank}

    def shapes(self) -> str:
        return ", ".join(f"{name} {['rows', *array.shape[1:]]}" for name, array in self.seen.items()).replace("'", "")


def _yolo(guess: _Guess) -> tuple[str, ...]:
    wide = guess.of_rank(3)
    output = guess.output or (next(iter(wide)) if len(wide) == 1 else "")
    if not output or guess.seen[output].ndim != 3:
        raise guess.refuse("output", f"a yolo has one output [rows, anchors, values], and its are {guess.shapes()}")
    one, other = guess.seen[output].shape[1:]
    last = guess.take(
        "anchors_last", lambda: None if one == other else one < other, f"{output} is as wide as it is high"
    )
    values = guess.seen[output] if last else guess.seen[output].transpose(0, 2, 1)
    objectness = guess.take(
        "objectness", lambda: _objectness(values.shape[1], guess), _yolo_why(values.shape[1], guess)
    )
    _say_activation(guess, values[:, 4:], sigmoid=True)
    guess.take("box", lambda: "cxcywh", "")
    guess.take("normalised", lambda: _is_shares(values[:, :4]), "its boxes are all zero for made pictures")
    _check_classes(guess, output, values.shape[1] - (5 if objectness else 4))
    return (output,)


def _objectness(values: int, guess: _Guess) -> bool | None:
    classes = len(guess.labels) or (len(COCO80) if values in (84, 85) else 0)
    return {classes + 4: False, classes + 5: True}.get(values) if classes else None


def _yolo_why(values: int, guess: _Guess) -> str:
    if guess.labels:
        return (
            f"each anchor has {values} values, and {len(guess.labels)} labels with 4 of a box, and maybe 1 for there "
            "being anything, make another number; six are those of an export with suppression in it, which is no yolo "
            "head"
        )
    return f"each anchor has {values} values, and without --labels nobody knows how many of them are classes"


def _ssd(guess: _Guess) -> tuple[str, ...]:
    named = {name.removesuffix(":0"): name for name in guess.seen}
    tensorflow = all(name in named for name in _TENSORFLOW)
    boxes = guess.take("boxes", lambda: _one(_boxes_of(guess)), f"its boxes are one of {guess.shapes()}")[0]
    count = guess.seen[boxes].shape[1:2]
    rest = {name: array for name, array in guess.seen.items() if name != boxes and array.shape[1:2] == count}
    scores = guess.take("scores", lambda: _one(_scores_of(rest)), f"its scores are one of {guess.shapes()}")[0]
    classes = ""
    if guess.seen[scores].ndim == 2:
        classes = guess.take("classes", lambda: _classes_of(rest, scores), f"its classes are one of {guess.shapes()}")
    why = "cannot be told from its outputs, whose names are not those of TensorFlow"
    guess.take("box", lambda: "yxyx" if tensorflow else None, f"in which order the sides of a box come {why}")
    shares = "its boxes are all zero for made pictures"
    guess.take("normalised", lambda: True if tensorflow else _is_shares(guess.seen[boxes]), shares)
    counted = (
        f"whether classes count from 0 or from 1 {why}"
        if classes
        else f"{scores} has {guess.seen[scores].shape[-1]} classes, and there are {len(guess.labels)} labels"
    )
    first = guess.take("first_class", lambda: 1 if tensorflow else _first_class(guess, scores, classes), counted)
    guess.take("iou_threshold", lambda: 1.0 if classes else 0.5, "")
    _say_activation(guess, guess.seen[scores], sigmoid=False)
    if tensorflow and guess.labels == COCO80:
        raise CompileError(
            f"{guess.asked.file}: TensorFlow's detectors number COCO's classes 1 to 90. Give --labels coco90, or a "
            "file with the labels of this one in its own order."
        )
    if not classes:
        _check_classes(guess, scores, guess.seen[scores].shape[-1] - first)
    return tuple(filter(None, (boxes, scores, classes)))


def _boxes_of(guess: _Guess) -> list[str]:
    four = [name for name, array in guess.of_rank(3).items() if array.shape[2] == 4]
    return [name for name in four if "box" in name.lower()] if len(four) > 1 else four


def _scores_of(rest: Mapping[str, Array]) -> list[str]:
    """By its name; else the only one of class scores; else the only one that is not made of whole numbers."""
    named = [name for name in rest if "score" in name.lower() or "conf" in name.lower()]
    wide = [name for name, array in rest.items() if array.ndim == 3]
    broken = [name for name, array in rest.items() if array.ndim == 2 and not _is_whole(array)]
    return next((found for found in (named, wide, broken) if len(found) == 1), [])


def _classes_of(rest: Mapping[str, Array], scores: str) -> str | None:
    left = [name for name, array in rest.items() if name != scores and array.ndim == 2 and _is_whole(array)]
    named = [name for name in left if "class" in name.lower() or "label" in name.lower()]
    return next((found[0] for found in (left, named) if len(found) == 1), None)


def _first_class(guess: _Guess, scores: str, classes: str) -> int | None:
    if classes or not guess.labels:
        return None
    behind = guess.seen[scores].shape[-1] - len(guess.labels)
    return behind if behind in (0, 1) else None


def _nanodet(guess: _Guess) -> tuple[str, ...]:
    wide, shapes = guess.of_rank(3), guess.shapes()

    def level(stride: int) -> list[str]:
        cells = -(-guess.pre.width // stride) * -(-guess.pre.height // stride)
        return [name for name, array in wide.items() if array.shape[1] == cells]

    strides = guess.take(
        "strides",
        lambda: tuple(stride for stride in _STRIDES if len(level(stride)) == 2) or None,
        f"no grid over {guess.pre.width}x{guess.pre.height} pixels has as many cells as two of its outputs, {shapes}",
    )
    levels = [level(stride) for stride in strides]
    why = f"which of its outputs are scores cannot be told, of {shapes}; --labels may tell"
    scores = guess.take("scores", lambda: _picked(guess, levels), why)
    boxes = guess.take("boxes", lambda: _others(levels, scores), why)
    bins = guess.seen[boxes[0]].shape[-1]
    why = f"{boxes[0]} has {bins} values a cell, which are not four distributions"
    guess.take("reg_max", lambda: bins // 4 - 1 if bins % 4 == 0 and bins > 4 else None, why)
    guess.take("box", lambda: "xyxy", "")
    _say_activation(guess, np.concatenate([guess.seen[name].ravel() for name in scores]), sigmoid=True)
    _check_classes(guess, scores[0], guess.seen[scores[0]].shape[-1])
    return (*scores, *boxes)


def _others(levels: Sequence[Sequence[str]], scores: Sequence[str]) -> tuple[str, ...] | None:
    left = tuple(name for level in levels for name in level if name not in scores)
    return left if len(left) == len(scores) > 0 else None


def _picked(guess: _Guess, levels: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """The output of each level that has as many values as there are labels, or, without labels, shares alone."""
    picked = []
    for level in levels:
        if guess.labels:
            fit = [name for name in level if guess.seen[name].shape[2] == len(guess.labels)]
        else:
            fit = [name for name in level if _is_share(guess.seen[name])]
        if len(fit) != 1:
            return None
        picked.append(fit[0])
    return tuple(picked)


def _check_classes(guess: _Guess, output: str, classes: int) -> None:
    if guess.labels and classes != len(guess.labels):
        raise CompileError(
            f"{guess.asked.file}: {output} has {classes} classes, and there are {len(guess.labels)} labels. Give "
            "--labels with one name for each."
        )


def _say_activation(guess: _Guess, scores: Array, *, sigmoid: bool) -> None:
    """Scores that are no shares are logits, which a sigmoid makes scores of, where no softmax could be meant."""
    why = f"its scores run from {scores.min():.3g} to {scores.max():.3g}, and what makes shares of them is not known"
    guess.take("activation", lambda: "none" if _is_share(scores) else "sigmoid" if sigmoid else None, why)


def _is_share(values: Array) -> bool:
    return bool(np.all((values >= 0) & (values <= 1)))


def _is_shares(boxes: Array) -> bool | None:
    largest = float(np.abs(boxes).max(initial=0.0))
    return largest <= _SHARES if largest > 0 else None


def _is_whole(values: Array) -> bool:
    return bool(np.all(values == np.round(values)))


def _one(names: Sequence[str]) -> tuple[str] | None:
    return (names[0],) if len(names) == 1 else None


def _written(value: object) -> str:
    return msgspec.json.encode(value).decode()
