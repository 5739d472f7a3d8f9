"""What a node says of its cameras, as JSON: on MQTT, as server-sent events, over WebSockets, to a webhook.

Readers ignore fields and types that they do not know. Times ending in `_at_s` are unix seconds by the node's clock,
`at_s` that of the picture. Boxes are left, top, right, bottom, in pixels of a picture of `size` (width, height).
"""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = 1

Box = tuple[float, float, float, float]
Phase = Literal["start", "update", "end", "amended"]
CameraStateName = Literal["starting", "live", "frozen", "dark", "reconnecting", "denied", "ended", "stopped"]


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """`sequence` rises by one with each message of a camera under one `epoch` (the unix time in milliseconds at which
    its node started): a reader that has seen it has seen the message, and a gap is a loss."""

    node: str
    camera: str
    epoch: int
    sequence: int
    at_s: float
    schema: int = SCHEMA


class Verdict(msgspec.Struct, frozen=True):
    """Whose word the label is, and what it is worth: as the headers of an answer say it, see docs/api.md.

    `late`: it came after its request had ended, out of the spool. `edge_label` is what the edge had said where the
    cloud says something else, else "".
    """

    tier: Literal["edge", "cloud"] = "edge"
    reason: str = ""
    confidence: float | None = None
    certified: bool = False
    degraded: bool = False
    late: bool = False
    edge_label: str = ""


class TrackEvent(_Message, frozen=True, kw_only=True, tag_field="type", tag="track"):
    """One thing on its way through the picture. `event` is the same in all messages about it, also in one that amends
    it after its end. `score` is that of its last detection, at its end the best of all. `zones` are those it is in.
    `clip`, here and below, is the path on the node where the clip of the event will be, "" where none was asked for."""

    event: str
    phase: Phase
    track: int
    label: str
    score: float
    box: Box
    size: tuple[int, int]
    began_at_s: float
    zones: tuple[str, ...] = ()
    verdict: Verdict = Verdict()
    snapshot: str = ""
    clip: str = ""


class PictureEvent(_Message, frozen=True, kw_only=True, tag_field="type", tag="picture"):
    """Of a classifier: a label began to hold for the whole picture, or ended; of an embedding model: a vector."""

    event: str
    phase: Phase
    label: str = ""
    score: float = 0.0
    began_at_s: float = 0.0
    vector: tuple[float, ...] = ()
    verdict: Verdict = Verdict()
    snapshot: str = ""
    clip: str = ""


class CrossingEvent(_Message, frozen=True, kw_only=True, tag_field="type", tag="crossing"):
    """A track went over a line; `event` is the track's."""

    event: str
    line: str
    direction: Literal["in", "out"]
    track: int
    label: str
    clip: str = ""


class RuleEvent(_Message, frozen=True, kw_only=True, tag_field="type", tag="rule"):
    """A rule began to hold, or ended. `tracks` are the events of the tracks for which it holds."""

    event: str
    phase: Literal["start", "end"]
    rule: str
    zone: str = ""
    tracks: tuple[str, ...] = ()
    snapshot: str = ""
    clip: str = ""


class CountsMessage(_Message, frozen=True, kw_only=True, tag_field="type", tag="counts"):
    """`zones`: zone, then label, then how many are in it now; `lines`: line, then `in` and `out` since the node
    started."""

    zones: dict[str, dict[str, int]] = {}
    lines: dict[str, dict[str, int]] = {}


class StateMessage(_Message, frozen=True, kw_only=True, tag_field="type", tag="state"):
    """How a camera is, retained. `why` is for people. `url` names no password; `hardware` is "" where software decodes.
    `fps` is what was decoded of late, a second."""

    state: CameraStateName
    since_at_s: float
    why: str = ""
    url: str = ""
    codec: str = ""
    hardware: str = ""
    size: tuple[int, int] = (0, 0)
    fps: float = 0.0
    model: str = ""


CameraMessage = TrackEvent | PictureEvent | CrossingEvent | RuleEvent | CountsMessage | StateMessage

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CameraMessage)


def encode(message: CameraMessage) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes) -> CameraMessage:
    """Raises msgspec.DecodeError for what is no such message."""
    message: CameraMessage = _decoder.decode(data)
    return message
