"""Whether cameras are described to Home Assistant, and where it listens."""

from __future__ import annotations

import re

import msgspec

_PREFIX = re.compile(r"[A-Za-z0-9_\-]+(/[A-Za-z0-9_\-]+)*")


class HomeAssistantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[home_assistant]`; `prefix` is where Home Assistant listens, as its own settings say."""

    on: bool = False
    prefix: str = "homeassistant"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"home_assistant: prefix {self.prefix[:80]!r} is no topic: write homeassistant")
