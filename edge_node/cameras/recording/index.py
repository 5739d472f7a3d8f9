"""Which clips an event is in. No files here, only what is known of them."""

from __future__ import annotations

from edge_node.cameras.recording.clip import Clip, ClipName


class Index:
    """Changed under the shelf's lock; `clips` may be asked by anybody."""

    def __init__(self) -> None:
        self._clips: dict[tuple[str, str], tuple[ClipName, ...]] = {}
        self._events: dict[ClipName, tuple[str, ...]] = {}

    def add(self, name: ClipName, clip: Clip) -> None:
        """In the place of one with the same name."""
        self.remove(name)
        self._events[name] = clip.events
        for event in clip.events:
            self._clips[name.camera, event] = (*self.clips(name.camera, event), name)

    def remove(self, name: ClipName) -> None:
        for event in self._events.pop(name, ()):
            left = tuple(other for other in self.clips(name.camera, event) if other != name)
            if left:
                self._clips[name.camera, event] = left
            else:
                self._clips.pop((name.camera, event), None)

    def clips(self, camera: str, event: str) -> tuple[ClipName, ...]:
        """In the order in which they became known."""
        return self._clips.get((camera, event), ())
