"""What leaves the box: counted by camera, and written down."""

from __future__ import annotations

from collections.abc import Mapping

from contracts import headers
from edge_node.cameras.camera import Camera
from edge_node.cameras.departures import Departures
from edge_node.cameras.escalation.doubts import camera_of
from runtime.links.http.upstream import Request
from runtime.links.process.telemetry import Purpose


class Leaving:
    """`there` are the cameras by name; what leaves of one that was taken away is written down all the same."""

    def __init__(self, departures: Departures, there: Mapping[str, Camera]) -> None:
        self._departures = departures
        self._there = there

    def picture(self, camera: str, what: str, about: str, to: str, picture: bytes) -> None:
        """One that goes now; the names are those of `Departure`."""
        self._departures.note(camera, what, about, to, picture)
        self._count(camera, what, len(picture))

    def view(self, camera: str, what: str, about: str, to: str, size: int) -> None:
        """One of many pieces that somebody gets one after another."""
        self._departures.viewed(camera, what, about, to, size)
        self._count(camera, what, size)

    def asked(self, request: Request, purpose: Purpose, url: str) -> None:
        """For `Pipelines.departures`: a request has gone to a cloud, which may be one of a camera's."""
        request_id = request.headers.get(headers.REQUEST_ID, "")
        camera = camera_of(request_id)
        if camera:
            self.picture(camera, purpose, request_id, url, request.body)

    def _count(self, camera: str, what: str, size: int) -> None:
        there = self._there.get(camera)
        if there is not None:
            there.figures.sent[what] += 1
            there.figures.sent_bytes[what] += size
