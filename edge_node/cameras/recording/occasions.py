"""Which of what is said of a camera asks for a clip, and where that clip will be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from contracts.camera_events import CameraMessage, CountsMessage, RuleEvent, StateMessage
from edge_node.cameras.recording.config import CameraRecordingConfig

AGAIN_S = 1.0
"""What goes on asks for more no sooner than that."""
_MOST = 10_000

Want = Callable[[str, str, float], bool]
"""Asks for a clip of a camera, of an event, at a unix time. Whether one will come of it."""


class _Asked(NamedTuple):
    at_s: float
    granted: bool


class Occasions:
    """For the event loop. An event that goes on asks again, so that its clip does; one that was refused does not.

    The end of a track is told when it has been out of sight for a while: it asks for nothing. That of a rule does.
    """

    def __init__(self, want: Want) -> None:
        self._want = want
        self._chosen: dict[str, CameraRecordingConfig] = {}
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def choose(self, camera: str, config: CameraRecordingConfig) -> None:
        self._chosen[camera] = config

    def forget(self, camera: str) -> None:
        self._chosen.pop(camera, None)

    def complete(self, message: CameraMessage) -> CameraMessage:
        """Asks where there is an occasion. The message names the clip of its event, where one was asked for."""
        if isinstance(message, (StateMessage, CountsMessage)):
            return message
        chosen = self._chosen.get(message.camera)
        if chosen is not None and _is_occasion(message, chosen):
            self._ask(message.camera, message.event, message.at_s, getattr(message, "phase", "start"))
        asked = self._asked.get(message.event)
        if asked is None or not asked.granted:
            return message
        return msgspec.structs.replace(message, clip=clip_path(message.camera, message.event))

    def _ask(self, camera: str, event: str, at_s: float, phase: str) -> None:
        before = self._asked.get(event)
        if before is not None and (not before.granted or (phase == "update" and at_s < before.at_s + AGAIN_S)):
            return
        self._asked[event] = _Asked(at_s, self._want(camera, event, at_s))
        self._asked.move_to_end(event)
        if len(self._asked) > _MOST:
            self._asked.popitem(last=False)


def clip_path(camera: str, event: str) -> str:
    """On the node's own port."""
    return f"/v1/cameras/{camera}/clips/{event}"


def _is_occasion(message: CameraMessage, chosen: CameraRecordingConfig) -> bool:
    if message.__struct_config__.tag not in chosen.events:
        return False
    if isinstance(message, RuleEvent):
        return True
    goes_on = getattr(message, "phase", "start") in ("start", "update")
    return goes_on and (not chosen.labels or getattr(message, "label", "") in chosen.labels)
