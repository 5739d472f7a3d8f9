"""Whether evidence may still leave the box: its camera may have been changed since it was taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from contracts.decoding import UNREADABLE
from contracts.headers import Terms
from edge_node.cameras.escalation.words import Asked

if TYPE_CHECKING:
    from edge_node.cameras.config import CameraConfig

_decoder = msgspec.msgpack.Decoder(Asked)


class Permission:
    """`config_of` is a camera as it is now, None for one that was taken away: what it had seen goes as it was to go.
    `may_ask`: whether a cloud may have a request of such terms."""

    def __init__(self, config_of: Callable[[str], CameraConfig | None], may_ask: Callable[[Terms], bool]) -> None:
        self._config_of = config_of
        self._may_ask = may_ask

    def holds(self, asked: Asked) -> bool:
        config = self._config_of(asked.camera)
        if config is None:
            return True
        is_asked = config.escalation.ask != "never" and self._may_ask(Terms(residency=config.residency))
        return is_asked and asked.hiding in ("", config.hiding.fingerprint)

    def denies(self, note: bytes) -> bool:
        """For `Pipelines.deniers`. What has no note is none of ours."""
        if not note:
            return False
        try:
            return not self.holds(_decoder.decode(note))
        except UNREADABLE:
            return False
