"""From output tensors to an answer: labels with probabilities, a vector, or the tensors themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypedDict, cast

import msgspec
import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Artifact, ConfidenceRule, Manifest, Preprocess
from contracts.oip import bad_tensor
from contracts.predictions import (
    Box,
    Classification,
    Detection,
    Embedding,
    Prediction,
    Scored,
    label_answer,
    things_answer,
)
from runtime.serving.engines.tensors import Array
from runtime.serving.models import confidence
from runtime.serving.models.found import Found
from runtime.serving.models.head_fit import check_declared, check_shapes, read_of
from runtime.serving.models.heads import found_in
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.placing import placed

TOP = 5


class Reading:
    """What the outputs say to one request; what few ask for is worked out when asked."""

    def __init__(self, readings: Readings, at: int) -> None:
        self._readings = readings
        self._at = at

    @property
    def confidence(self) -> float | None:
        """0..1; None without a rule, and where nothing was found."""
        return self._readings.confidences[self._at]

    @property
    def answer(self) -> str:
        """The comparable essence; empty for a model that has no labels to compare."""
        return self._readings.answer(self._at)

    @property
    def probabilities(self) -> Array | None:
        """[rows, classes], None for a model that scores none."""
        return self._readings.probabilities(self._at)

    @property
    def found(self) -> tuple[Found, ...] | None:
        """What a detector has found in each row, in pixels of its own picture; None for any other model."""
        return self._readings.found(self._at)


class _Said(TypedDict):
    """What every prediction says of itself."""

    model: str
    bundle: str
    confidence: float | None
    tier: str
    node: str
    reason: str
    request_id: str


class Stamp(msgspec.Struct, frozen=True):
    """Who answers, for the body of a prediction."""

    model: str
    tier: str
    node: str
    reason: str
    request_id: str


class Readings:
    """What a run says to each of its requests, whose rows end at `ends`.

    `confidences` has one entry for each, None without a rule; `probabilities` are those of all rows. `find` finds what
    a detector has found in all rows: it is asked once, by whoever wants to know first.
    """

    def __init__(
        self,
        ends: Sequence[int],
        confidences: Sequence[float | None],
        probabilities: Array | None = None,
        find: Callable[[], tuple[Found, ...]] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.confidences = confidences
        self._find = find
        self._found: tuple[Found, ...] | None = None
        self._names = names
        self._ends = ends
        self._probabilities = probabilities
        self._labels: list[int] | None = None

    def worked_out(self) -> Readings:
        """Itself, with all that takes long done."""
        self._all_found()
        return self

    def answer(self, at: int) -> str:
        """The comparable essence for one of them."""
        found = self.found(at)
        if found is not None:
            return things_answer(_named(each, self._names) for each in found)
        if self._probabilities is None:
            return ""
        if self._labels is None:
            self._labels = cast(list[int], np.argmax(self._probabilities, axis=1).tolist())
        start, end = self._rows(at)
        return str(self._labels[start]) if end - start == 1 else label_answer(self._labels[start:end])

    def probabilities(self, at: int) -> Array | None:
        """[rows, classes] for one of them."""
        return None if self._probabilities is None else self._probabilities[slice(*self._rows(at))]

    def found(self, at: int) -> tuple[Found, ...] | None:
        """In each row of one of them."""
        found = self._all_found()
        return None if found is None else found[slice(*self._rows(at))]

    def of(self, at: int) -> Reading:
        """All that it says to one of them."""
        return Reading(self, at)

    def _all_found(self) -> tuple[Found, ...] | None:
        if self._found is None and self._find is not None:
            self._found = self._find()
        return self._found

    def _rows(self, at: int) -> tuple[int, int]:
        return self._ends[at - 1] if at else 0, self._ends[at]


def nothing(ends: Sequence[int]) -> Readings:
    """What the outputs of a model say that has no labels to compare."""
    return Readings(ends or [0], [None] * max(1, len(ends)))


def read(outputs: Mapping[str, Array], manifest: Manifest, artifact: Artifact) -> Reading:
    """Probabilities, confidence under the artifact's rule, and the top labels of all rows."""
    return read_each(outputs, (), manifest, artifact).of(0)


def read_each(outputs: Mapping[str, Array], ends: Sequence[int], manifest: Manifest, artifact: Artifact) -> Readings:
    """What `outputs` say to each of the requests whose rows end at `ends`; without any, to one that has all rows."""
    head = manifest.postprocess
    if head.detector is not None:
        return _read_things(outputs, ends or [len(outputs[head.output])], manifest, artifact.confidence)
    if not head.scores_classes:
        return nothing(ends)
    ends = ends or [len(outputs[head.output])]
    rule = artifact.confidence
    temperature = rule.temperature if rule is not None else 1.0
    soften = confidence.softmax if head.kind == "logits" else confidence.sharpen
    probabilities = soften(outputs[head.output], temperature)
    sure = confidence.of_each(probabilities, ends, rule.isotonic) if rule is not None else [None] * len(ends)
    return Readings(ends, sure, probabilities)


def _read_things(
    outputs: Mapping[str, Array], ends: Sequence[int], manifest: Manifest, rule: ConfidenceRule | None
) -> Readings:
    """Without a rule nothing has to be found before somebody asks for it."""
    find = partial(found_in, outputs, manifest)
    if rule is None:
        return Readings(ends, [None] * len(ends), find=find, names=manifest.labels)
    found = find()
    sure = confidence.of_pictures(found, _finite_rows(outputs, manifest), ends, rule)
    return Readings(ends, sure, find=lambda: found, names=manifest.labels)


def _finite_rows(outputs: Mapping[str, Array], manifest: Manifest) -> list[bool]:
    told = [outputs[name] for name in read_of(manifest)]
    return [all(bool(np.isfinite(array[row]).all()) for array in told) for row in range(len(told[0]))]


def predict(
    outputs: Mapping[str, Array],
    reading: Reading,
    manifest: Manifest,
    stamp: Stamp,
    picture: Size | None = None,
) -> Prediction:
    """The typed answer for the one row of `outputs`. Boxes are in pixels of the `picture`, or of the model's own."""
    said = _said(reading, manifest, stamp)
    found = reading.found
    if found is not None:
        return _detection(found[0], picture, manifest, said)
    if manifest.task == "embedding":
        return Embedding(vector=tuple(outputs[manifest.postprocess.output][0].ravel().tolist()), **said)
    if reading.probabilities is None:
        raise FoothillError("internal", f"Bundle {manifest.reference} gives no probabilities to answer with.")
    return _classification(reading.probabilities[0], manifest.labels, said)


def _said(reading: Reading, manifest: Manifest, stamp: Stamp) -> _Said:
    return {
        "model": stamp.model,
        "bundle": manifest.reference,
        "confidence": reading.confidence,
        "tier": stamp.tier,
        "node": stamp.node,
        "reason": stamp.reason,
        "request_id": stamp.request_id,
    }


def check_numbers(outputs: Mapping[str, Array], reading: Reading, manifest: Manifest, *, from_tensors: bool) -> None:
    """Whose fault an answer without numbers is: a picture always is numbers, the tensors of a caller need not be.

    Raises FoothillError `bad_tensor` or `internal`.
    """
    if all(told.dtype.kind != "f" or np.isfinite(told).all() for told in _read_of(outputs, reading, manifest)):
        return
    if from_tensors:
        raise FoothillError(
            "bad_tensor",
            f"What {manifest.reference} makes of these tensors is NaN or infinite. "
            "Look for NaN, infinity or a wrong scale in them.",
        )
    raise FoothillError(
        "internal", f"Bundle {manifest.reference} answered with values that are no numbers. Roll it back."
    )


def _read_of(outputs: Mapping[str, Array], reading: Reading, manifest: Manifest) -> list[Array]:
    """All that the answer is made of."""
    if reading.probabilities is not None:
        return [reading.probabilities]
    return [outputs[name] for name in read_of(manifest)]


def check_predictable(manifest: Manifest) -> None:
    """Raises FoothillError `bad_request` where `/v1/predict` has no answer to give."""
    if manifest.task == "detection" and manifest.postprocess.detector is None:
        raise FoothillError(
            "bad_request",
            f"Model {manifest.model} is a detector, and its bundle defines no head that turns tensors into boxes. "
            f"Ask POST /v2/models/{manifest.model}/infer for its tensors.",
        )


def check_one_row(manifest: Manifest, inputs: Mapping[str, Array]) -> None:
    """A prediction speaks of one row. Raises FoothillError `bad_tensor`."""
    for spec in manifest.inputs:
        rows = len(inputs[spec.name]) if spec.shape[:1] == (-1,) else 1
        if rows != 1:
            raise bad_tensor(spec.name, "1 row", f"{rows}; send batches to /v2/models/{manifest.model}/infer")


def check_head(manifest: Manifest) -> None:
    """Raises FoothillError `bad_bundle` when the task, its post-processing and the outputs do not fit."""
    head = manifest.postprocess
    spec = next(spec for spec in manifest.outputs if spec.name == head.output)
    if head.scores_classes and len(spec.shape) != 2:
        raise _unfit(manifest, f"{head.kind} need an output of shape [rows, classes], not {list(spec.shape)}")
    if manifest.task == "classification" and not head.scores_classes:
        raise _unfit(manifest, f"a classification needs logits or probabilities, not {head.kind}")
    if manifest.task == "embedding" and head.kind != "vector":
        raise _unfit(manifest, f"an embedding needs a vector, not {head.kind}")
    classes = spec.shape[-1]
    if manifest.task == "classification" and manifest.labels and classes not in (-1, len(manifest.labels)):
        raise _unfit(manifest, f"it has {len(manifest.labels)} labels for {classes} classes")
    check_declared(manifest)


def check_found(outputs: Mapping[str, Array], manifest: Manifest) -> None:
    """Raises FoothillError `bad_bundle` where a head cannot read what a run has given, whatever was declared."""
    if manifest.postprocess.detector is not None:
        check_shapes({name: array.shape for name, array in outputs.items()}, manifest)
        found_in(outputs, manifest)


def _classification(row: Array, labels: Sequence[str], said: _Said) -> Classification:
    order = np.argsort(-row, kind="stable")[:TOP].tolist()
    top = tuple(Scored(_label(labels, index), float(row[index])) for index in order)
    return Classification(label=top[0].label, score=top[0].score, top=top, **said)


def _detection(found: Found, picture: Size | None, manifest: Manifest, said: _Said) -> Detection:
    objects = things_of(found, picture, manifest.preprocess, manifest.labels)
    return Detection(objects=objects, **said)


def things_of(found: Found, picture: Size | None, pre: Preprocess | None, labels: Sequence[str]) -> tuple[Box, ...]:
    """What was found, in pixels of the `picture`, or of the model's own; the best first."""
    boxes = placed(found.boxes, picture, pre) if picture is not None and pre is not None else found.boxes
    things = zip(found.labels.tolist(), found.scores.tolist(), boxes.tolist(), strict=True)
    return tuple(Box(_label(labels, label), score, tuple(box)) for label, score, box in things)


def _named(found: Found, names: Sequence[str]) -> list[str]:
    return [_label(names, label) for label in found.labels.tolist()]


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)


def _unfit(manifest: Manifest, what: str) -> FoothillError:
    return FoothillError("bad_bundle", f"Bundle {manifest.reference} cannot answer: {what}. Compile it again.")
