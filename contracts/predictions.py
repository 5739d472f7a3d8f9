"""Typed answers of `POST /v1/predict/{model}`, as JSON or MessagePack."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from contracts.decoding import UNREADABLE

_REASON = b'"reason":'
_TOLD = re.compile(rb'"reason":("[a-z-]{1,32}")[,}]')


Sides = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of one picture."""

OVERLAP = 0.3
"""Intersection over union from which on two boxes are about the same thing."""


class Scored(msgspec.Struct, frozen=True):
    """One label with its probability (0..1)."""

    label: str
    score: float


class Box(msgspec.Struct, frozen=True):
    """One detection in pixels of the picture as sent: left, top, right, bottom."""

    label: str
    score: float
    box: Sides


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What every prediction says of itself. `model` is the logical model, `bundle` name@version of what answered."""

    model: str
    bundle: str
    confidence: float | None
    tier: str
    node: str
    reason: str
    request_id: str


class Classification(_Answer, frozen=True, tag_field="task", tag="classification", kw_only=True):
    """The top label, its probability, and the best labels in falling order."""

    label: str
    score: float
    top: tuple[Scored, ...]


class Detection(_Answer, frozen=True, tag_field="task", tag="detection", kw_only=True):
    objects: tuple[Box, ...]


class Embedding(_Answer, frozen=True, tag_field="task", tag="embedding", kw_only=True):
    """A vector of float32 values."""

    vector: tuple[float, ...]


Prediction = Classification | Detection | Embedding


def overlap(one: Sides, other: Sides) -> float:
    """Intersection over union, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)


def same_thing(one: Box, other: Box) -> bool:
    """Whether two detectors, of the same picture, say the same of the same thing."""
    return one.label == other.label and overlap(one.box, other.box) >= OVERLAP


def _area(sides: Sides) -> float:
    return (sides[2] - sides[0]) * (sides[3] - sides[1])


def label_answer(labels: Sequence[int]) -> str:
    """The comparable essence of a classification, one label index a row: what `Foothill-Answer` carries.

    Two answers agree when these are equal. Long batches are folded into a digest.
    """
    joined = ",".join(map(str, labels))
    return joined if len(joined) <= 64 else hashlib.sha256(joined.encode()).hexdigest()


NOTHING = "none"
"""The answer of a detector that has found nothing: "" would say that there is nothing to compare."""

_NAMELESS = "%"
_DIGEST_CHARACTERS = 64


def things_answer(rows: Iterable[Iterable[str]]) -> str:
    """The comparable essence of a detection: which labels were found, in each row. Two answers agree when these are
    equal, and only then. Labels are percent-encoded (RFC 3986), so that any can stand in a header; long answers are
    folded into a digest."""
    joined = ";".join(",".join(sorted(set(map(_escaped, labels)))) or NOTHING for labels in rows)
    # As long as a digest itself none may be that is not one.
    return joined if len(joined) < _DIGEST_CHARACTERS else hashlib.sha256(joined.encode()).hexdigest()


def _escaped(label: str) -> str:
    """No two labels have the same, and none has that of nothing."""
    if label == NOTHING:
        return f"%{ord(label[0]):02X}{label[1:]}"
    return quote(label, safe="", errors="surrogatepass") or _NAMELESS


def with_reason(body: bytes, content_type: str, reason: str) -> bytes:
    """The body of a prediction with the holder's final `reason` in place of what its server could know.

    Bodies that are no prediction come back as they are.
    """
    if content_type == "application/json" and (told := _reason_in(body)) is not None:
        return b"".join((body[: told.start(1)], msgspec.json.encode(reason), body[told.end(1) :]))
    codec = _CODECS.get(content_type.partition(";")[0].strip().lower())
    if codec is None:
        return body
    try:
        answer = codec.decode(body)
    except UNREADABLE:
        return body
    if not isinstance(answer, dict) or "reason" not in answer or answer["reason"] == reason:
        return body
    return codec.encode({**answer, "reason": reason})


def _reason_in(body: bytes) -> re.Match[bytes] | None:
    """Where the reason stands, when that is plain without reading all of it: once, before any object in the object.

    In a string its quotes would be escaped.
    """
    at = body.find(_REASON)
    if at < 0 or body.find(_REASON, at + 1) > 0 or body.rfind(b"{", 0, at) != 0 or body.find(b"[", 0, at) >= 0:
        return None
    return _TOLD.match(body, at)


class _Codec(NamedTuple):
    decode: Callable[[bytes], object]
    encode: Callable[[object], bytes]


_CODECS = {
    "application/json": _Codec(msgspec.json.decode, msgspec.json.encode),
    "application/msgpack": _Codec(msgspec.msgpack.decode, msgspec.msgpack.encode),
}
