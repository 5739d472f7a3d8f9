"""What the box said, counted while it says it."""

from __future__ import annotations

from collections import Counter

import aiohttp
import msgspec

from contracts import camera_events
from contracts.camera_events import CameraMessage, CrossingEvent, PictureEvent, TrackEvent

_DATA = b"data: "


class Heard(msgspec.Struct):
    """`things` by the label that they began with; `crossings` by direction; `amended`: how often the cloud called what
    the edge had named (`none`: something moved that the edge knew nothing of) by another name or by none, or agreed."""

    events: int = 0
    things: Counter[str] = msgspec.field(default_factory=Counter)
    crossings: Counter[str] = msgspec.field(default_factory=Counter)
    amended: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)

    def note(self, message: CameraMessage) -> None:
        self.events += 1
        if isinstance(message, CrossingEvent):
            self.crossings[message.direction] += 1
        elif isinstance(message, TrackEvent | PictureEvent) and message.phase == "amended":
            self.amended[message.verdict.edge_label or message.label, message.label] += 1
        elif isinstance(message, TrackEvent) and message.phase == "start":
            self.things[message.label] += 1


async def listen(url: str, heard: Heard) -> None:
    """To all events of the box, until it is cancelled, or the box ends."""
    kinds = ("track", "picture", "crossing", "rule")
    address = f"{url}/v1/cameras/events?{'&'.join(f'type={kind}' for kind in kinds)}"
    patience = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=patience) as session, session.get(address) as events:
        async for line in events.content:
            if line.startswith(_DATA):
                heard.note(camera_events.decode(line.removeprefix(_DATA).strip()))
