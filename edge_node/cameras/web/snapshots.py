"""The route of what an event has begun with."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from contracts.errors import FoothillError
from edge_node.cameras.snapshots.taking import Snapshots

Leave = Callable[[str, str, str, str, bytes], None]
"""(camera, what for, about what, to whom, picture): a picture leaves the box."""


class SnapshotRoutes:
    """`leave` is told of each that goes."""

    def __init__(self, snapshots: Snapshots, leave: Leave) -> None:
        self._snapshots = snapshots
        self._leave = leave

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/cameras/{camera}/events/{event}/snapshot", self.snapshot)]

    async def snapshot(self, request: web.Request) -> web.Response:
        """Also of a camera that is there no more."""
        camera, event = request.match_info["camera"], request.match_info["event"]
        jpeg = await self._snapshots.get(camera, event)
        if jpeg is None:
            raise FoothillError(
                "not_found", f"No snapshot is kept of event {event[:80]}: none was taken, or it gave way."
            )
        if request.method != "HEAD":
            self._leave(camera, "snapshot", event, request.remote or "", jpeg)
        return web.Response(body=jpeg, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
