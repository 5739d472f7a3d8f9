"""What a clip is called, and what the file beside it says."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import msgspec

from contracts.topics import NODE_NAME

VIDEO_SUFFIX, TEXT_SUFFIX = ".mp4", ".json"
MOST_EVENTS = 256
"""Named in one clip; a rule that fires with every frame would make the file beside it larger than the video."""

LATEST_S = 32_503_680_000.0
"""The year 3000: times beyond are taken for it."""

_MOST_EVENT_LETTERS = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9_\-]+")
_ID = re.compile(
    rf"(?P<camera>{NODE_NAME.pattern})/(?P<day>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})/"
    rf"(?P<time>[0-9]{{6}})-(?P<event>[A-Za-z0-9_\-]{{1,80}})"
)


class ClipName(NamedTuple):
    """`{camera}/{YYYY-MM-DD}/{HHMMSS}-{event}`, UTC: a clip's identity, and its path without a suffix."""

    camera: str
    day: str
    stem: str

    def __str__(self) -> str:
        return "/".join(self)

    def below(self, directory: Path) -> Path:
        return directory / self.camera / self.day / self.stem


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON beside a clip. Times are unix seconds; `seconds` is how long it plays, `bytes` and `sha256` are of the
    video. `cut_short` says why it ends before it should have; `keep`: it gives way to nothing."""

    camera: str
    events: tuple[str, ...]
    from_s: float
    to_s: float
    seconds: float
    codec: str
    width: int
    height: int
    pictures: int
    bytes: int
    sha256: str
    cut_short: str = ""
    keep: bool = False


def name_of(camera: str, from_s: float, event: str) -> ClipName:
    """An event's id may hold anything: what no file name should hold is replaced."""
    begun = datetime.fromtimestamp(min(max(from_s, 0.0), LATEST_S), timezone.utc)
    safe = _UNSAFE.sub("_", event)[:_MOST_EVENT_LETTERS] or "_"
    return ClipName(camera, f"{begun:%Y-%m-%d}", f"{begun:%H%M%S}-{safe}")


def parse_name(text: str) -> ClipName | None:
    """None for anything that `name_of` does not make, above all for what leads out of the directory."""
    found = _ID.fullmatch(text)
    return ClipName(found["camera"], found["day"], f"{found['time']}-{found['event']}") if found else None


def begun_at_s(name: ClipName) -> float | None:
    """What the name itself says, in unix time; None where it is no time at all."""
    try:
        begun = datetime.strptime(f"{name.day} {name.stem[:6]}", "%Y-%m-%d %H%M%S")
    except ValueError:
        return None
    return begun.replace(tzinfo=timezone.utc).timestamp()
