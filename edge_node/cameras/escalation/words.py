"""What the cloud says of what it was asked: the label of one thing, or of a whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from contracts.camera_events import Box, Verdict
from contracts.decoding import UNREADABLE
from contracts.predictions import NOTHING, OVERLAP, Classification, Detection, Prediction, overlap
from contracts.predictions import Box as Thing


class Asked(msgspec.Struct, frozen=True):
    """What was asked about, as it was said of the edge: it goes with the question, and outlives the process.

    `box` is in pixels of the picture, None: the whole of it; `left`, `top` and `scale` say where in it lies what the
    cloud got, and how many of its pixels one of that is. `why` names the trigger, "" where it is the certificate.
    `hiding` is the `fingerprint` of what was hidden in it, "" where nobody has noted that.
    """

    camera: str
    event: str
    at_s: float
    label: str
    score: float
    confidence: float | None
    began_at_s: float
    size: tuple[int, int]
    why: str = ""
    box: Box | None = None
    track: int = 0
    zones: tuple[str, ...] = ()
    snapshot: str = ""
    left: int = 0
    top: int = 0
    scale: float = 1.0
    hiding: str = ""


class NoWord(Exception):  # noqa: N818 - it names what happened
    """The cloud has answered, and said nothing of what was asked."""


class Word(NamedTuple):
    """`box` in pixels of the camera's picture, None where the cloud gave none."""

    label: str
    score: float
    box: Box | None = None


_predictions = msgspec.json.Decoder(Prediction)


def word_of(body: bytes, asked: Asked) -> Word:
    """`body` is the JSON of a prediction. A thing that the cloud does not see is NOTHING.

    Raises NoWord for what says nothing about labels.
    """
    try:
        told = _predictions.decode(body)
    except UNREADABLE as error:
        raise NoWord(f"the cloud's answer is no prediction: {error}") from error
    if isinstance(told, Classification):
        return Word(told.label, told.score)
    if not isinstance(told, Detection):
        raise NoWord("the cloud answers with vectors, in which nothing is named")
    if asked.box is None:
        return _of_all(told.objects)
    return _of_one([_in_picture(thing, asked) for thing in told.objects], asked.label, asked.box)


def amended(asked: Asked, word: Word, *, reason: str, certified: bool, late: bool) -> Verdict:
    return Verdict(
        tier="cloud",
        reason=asked.why or reason,
        confidence=asked.confidence,
        certified=certified,
        late=late,
        edge_label=asked.label if word.label != asked.label else "",
    )


def _of_all(things: Sequence[Thing]) -> Word:
    labels = sorted({thing.label for thing in things})
    return Word(",".join(labels) or NOTHING, max((thing.score for thing in things), default=0.0))


def _of_one(things: Sequence[Thing], label: str, box: Box) -> Word:
    """Of those that overlap, the one that says what the edge says, if there is one; else the one that overlaps most."""
    near = [(thing.label == label, overlap(thing.box, box), thing) for thing in things]
    same = [each for each in near if each[1] >= OVERLAP]
    if not same:
        return Word(NOTHING, 0.0)
    _, _, best = max(same, key=lambda each: each[:2])
    return Word(best.label, best.score, best.box)


def _in_picture(thing: Thing, asked: Asked) -> Thing:
    """In pixels of the camera's picture."""
    width, height = asked.size
    begins, ends = (asked.left, asked.top) * 2, (width, height) * 2
    edges = (edge * asked.scale + begin for edge, begin in zip(thing.box, begins, strict=True))
    within = (round(min(max(edge, 0.0), float(end)), 1) for edge, end in zip(edges, ends, strict=True))
    return Thing(thing.label, thing.score, cast(Box, tuple(within)))
