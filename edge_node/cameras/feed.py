"""Everything that is said of cameras, in one order, to all who listen."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from contracts import camera_events
from contracts.camera_events import CameraMessage, CountsMessage, StateMessage
from contracts.topics import CameraKind

log = logging.getLogger(__name__)

RECENT = 1000
RETAINED: tuple[CameraKind, ...] = ("state", "counts")
M = TypeVar("M", bound=CameraMessage)


class Said(NamedTuple):
    """A message as it is sent. `body` is its JSON; `retained`: it stands until the next one of its kind. `number` rises
    with each message of the node."""

    camera: str
    kind: CameraKind
    body: bytes
    retained: bool
    message: CameraMessage
    number: int


def type_of(said: Said) -> str:
    """As its JSON names it."""
    return str(type(said.message).__struct_config__.tag)


Listener = Callable[[Said], None]
Completer = Callable[[CameraMessage], CameraMessage]
"""Fills in what whoever says a message does not know."""


class Feed:
    """`completers` and `listeners` must neither block nor fail. What is retained is kept here for those who come later,
    and the last events for those who were away for a moment."""

    def __init__(self, node: str, epoch: int) -> None:
        self._node = node
        self._epoch = epoch
        self._sequences: dict[str, int] = {}
        self._number = 0
        self._recent: deque[Said] = deque(maxlen=RECENT)
        self._standing: dict[tuple[str, CameraKind], Said] = {}
        self.completers: list[Completer] = []
        self.listeners: list[Listener] = []
        self.forgetters: list[Callable[[str, CameraKind], None]] = []

    @property
    def epoch(self) -> int:
        return self._epoch

    def since(self, number: int) -> list[Said]:
        """The events above that number, as far as they are kept."""
        return [said for said in self._recent if said.number > number]

    def latest(self, count: int) -> list[Said]:
        """So many events, at most."""
        return list(self._recent)[-count:] if count else []

    @property
    def standing(self) -> list[Said]:
        """The last of everything that is retained."""
        return list(self._standing.values())

    def say(self, kind: type[M], camera: str, at_s: float, **told: Any) -> M:
        """A message of that kind, with its place in the order, said to everybody."""
        sequence = self._sequences[camera] = self._sequences.get(camera, 0) + 1
        message = kind(node=self._node, camera=camera, epoch=self._epoch, sequence=sequence, at_s=at_s, **told)
        for completer in self.completers:
            message = _completed(completer, message)
        topic: CameraKind = _TOPICS.get(kind, "events")
        self._number += 1
        said = Said(camera, topic, camera_events.encode(message), topic != "events", message, self._number)
        if said.retained:
            self._standing[camera, topic] = said
        else:
            self._recent.append(said)
        for listener in self.listeners:
            _tell(listener, said)
        return message

    def forget(self, camera: str) -> None:
        """A camera that was taken away: what stood of it stands no more, also of an earlier life of the node, and
        `forgetters` are told. Its numbers go on, should it come back."""
        for kind in RETAINED:
            self._standing.pop((camera, kind), None)
            for forgetter in self.forgetters:
                forgetter(camera, kind)

    def event_id(self, camera: str, number: int) -> str:
        """Never given twice, also not in another life of this node."""
        return f"{camera}-{self._epoch:x}-{number}"


def _completed(completer: Completer, message: M) -> M:
    try:
        return cast(M, completer(message))
    except Exception:
        log.exception("a message of camera %s is said as it is", message.camera)
        return message


def _tell(listener: Listener, said: Said) -> None:
    try:
        listener(said)
    except Exception:
        log.exception("a listener did not take a message of camera %s", said.camera)


_TOPICS: dict[type[msgspec.Struct], CameraKind] = {CountsMessage: "counts", StateMessage: "state"}
