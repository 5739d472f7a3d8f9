"""From output tensors to an answer: labels with probabilities, a vector, or the tensors themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import numpy as np

from contracts.errors import FoothillError
from contracts.manifest import Artifact, Manifest
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
from runtime.serving.models.heads import found_in
from runtime.serving.pictures.picture import Size
from runtime.serving.pictures.placing import placed

TOP = 5


class Reading(msgspec.Struct, frozen=True):
    """What the outputs say. `confidence` (0..1) is None without a rule; `answer` is the comparable essence.

    `probabilities` [rows, classes] is None, and `answer` empty, for a model that has no labels to compare. `found` is
    what a detector has found in each row, in pixels of its own picture; None for any other model.
    """

    confidence: float | None = None
    answer: str = ""
    probabilities: Array | None = None
    found: tuple[Found, ...] | None = None


class Stamp(msgspec.Struct, frozen=True):
    """Who answers, for the body of a prediction."""

    model: str
    tier: str
    node: str
    reason: str
    request_id: str


class Readings:
    """What a run says to each of its requests, whose rows end at `ends`; what few ask for is worked out when asked.

    `confidences` has one entry for each, None without a rule; `probabilities` are those of all rows.
    """

    def __init__(
        self,
        ends: Sequence[int],
        confidences: Sequence[float | None],
        probabilities: Array | None = None,
        found: tuple[Found, ...] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.confidences = confidences
        self._found = found
        self._names = names
        self._ends = ends
        self._probabilities = probabilities
        self._labels: list[int] | None = None

    def answer(self, at: int) -> str:
        """The comparable essence for one of them."""
        if self._found is not None:
            start, end = self._rows(at)
            return things_answer(_named(each, self._names) for each in self._found[start:end])
        if self._probabilities is None:
            return ""
        if self._labels is None:
            self._labels = cast(list[int], np.argmax(self._probabilities, axis=1).tolist())
        start, end = self._rows(at)
        return str(self._labels[start]) if end - start == 1 else label_answer(self._labels[start:end])

    def of(self, at: int) -> Reading:
        """All that it says to one of them."""
        start, end = self._rows(at)
        probabilities = None if self._probabilities is None else self._probabilities[start:end]
        found = None if self._found is None else self._found[start:end]
        return Reading(self.confidences[at], self.answer(at), probabilities, found)

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
        found = found_in(outputs, manifest)
        return Readings(ends or [len(found)], [None] * max(1, len(ends)), found=found, names=manifest.labels)
    if not head.scores_classes:
        return nothing(ends)
    ends = ends or [len(outputs[head.output])]
    rule = artifact.confidence
    temperature = rule.temperature if rule is not None else 1.0
    soften = confidence.softmax if head.kind == "logits" else confidence.sharpen
    probabilities = soften(outputs[head.output], temperature)
    sure = confidence.of_each(probabilities, ends, rule.isotonic) if rule is not None else [None] * len(ends)
    return Readings(ends, sure, probabilities)


def predict(
    outputs: Mapping[str, Array],
    reading: Reading,
    manifest: Manifest,
    stamp: Stamp,
    picture: Size | None = None,
) -> Prediction:
    """The typed answer for the one row of `outputs`. Boxes are in pixels of the `picture`, or of the model's own."""
    if reading.found is not None:
        return _detection(reading.found[0], reading, manifest, stamp, picture)
    if manifest.task == "embedding":
        return _embedding(outputs[manifest.postprocess.output], reading, manifest, stamp)
    if reading.probabilities is None:
        raise FoothillError("internal", f"Bundle {manifest.reference} gives no probabilities to answer with.")
    return _classification(reading.probabilities[0], reading, manifest, stamp)


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
    head = manifest.postprocess
    detector = head.detector
    others = (*detector.boxes, *detector.scores, detector.classes) if detector is not None else ()
    return [outputs[name] for name in {head.output, *filter(None, others)}]


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
    """Raises FoothillError `bad_bundle` when the task and its post-processing do not fit."""
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


def _classification(row: Array, reading: Reading, manifest: Manifest, stamp: Stamp) -> Classification:
    order = np.argsort(-row, kind="stable")[:TOP].tolist()
    top = tuple(Scored(_label(manifest.labels, index), float(row[index])) for index in order)
    return Classification(
        label=top[0].label,
        score=top[0].score,
        top=top,
        model=stamp.model,
        bundle=manifest.reference,
        confidence=reading.confidence,
        tier=stamp.tier,
        node=stamp.node,
        reason=stamp.reason,
        request_id=stamp.request_id,
    )


def _detection(found: Found, reading: Reading, manifest: Manifest, stamp: Stamp, picture: Size | None) -> Detection:
    pre = manifest.preprocess
    boxes = placed(found.boxes, picture, pre) if picture is not None and pre is not None else found.boxes
    things = zip(found.labels.tolist(), found.scores.tolist(), boxes.tolist(), strict=True)
    return Detection(
        objects=tuple(Box(_label(manifest.labels, label), score, tuple(box)) for label, score, box in things),
        model=stamp.model,
        bundle=manifest.reference,
        confidence=reading.confidence,
        tier=stamp.tier,
        node=stamp.node,
        reason=stamp.reason,
        request_id=stamp.request_id,
    )


def _named(found: Found, names: Sequence[str]) -> list[str]:
    return [_label(names, label) for label in found.labels.tolist()]


def _embedding(output: Array, reading: Reading, manifest: Manifest, stamp: Stamp) -> Embedding:
    return Embedding(
        vector=tuple(output[0].ravel().tolist()),
        model=stamp.model,
        bundle=manifest.reference,
        confidence=reading.confidence,
        tier=stamp.tier,
        node=stamp.node,
        reason=stamp.reason,
        request_id=stamp.request_id,
    )


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)


def _unfit(manifest: Manifest, what: str) -> FoothillError:
    return FoothillError("bad_bundle", f"Bundle {manifest.reference} cannot answer: {what}. Compile it again.")
