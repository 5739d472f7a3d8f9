"""The clips of cameras over HTTP: listed, played, kept from retention, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from aiohttp import web

from contracts.errors import FoothillError
from edge_node.cameras.cameras import Cameras
from edge_node.cameras.recording.clip import Clip, ClipName
from edge_node.cameras.recording.library import MOST_LISTED, Listed
from edge_node.cameras.recording.part import RecordingPart
from edge_node.cameras.web.routes import View

MOST_LETTERS = 200
_USUAL_LIMIT = 100
_AGAIN_S = 5.0
_PLAYED = {
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
}


class ClipView(msgspec.Struct, frozen=True):
    """A clip, and the path on this node where it plays."""

    url: str
    clip: Clip


class ClipsView(msgspec.Struct, frozen=True):
    """`next` is the `before` of what follows, "" at the end."""

    clips: tuple[ClipView, ...]
    next: str


class ClipRoutes:
    """A clip is named by an event that it shows, the first one where there are several, or as a listing names it.

    `check_admin` raises FoothillError for who may change nothing; `view` is told of what goes.
    """

    def __init__(
        self, cameras: Cameras, part: RecordingPart, *, check_admin: Callable[[web.Request], None], view: View
    ) -> None:
        self._cameras = cameras
        self._part = part
        self._check_admin = check_admin
        self._view = view

    def routes(self) -> Sequence[web.RouteDef]:
        found: list[web.RouteDef] = [web.get("/v1/cameras/{camera}/clips", self.list)]
        for path in ("/v1/cameras/{camera}/clips/{event}", "/v1/cameras/{camera}/clips/{day}/{stem}"):
            found += [
                web.get(path, self.play),
                web.put(f"{path}/keep", self.keep),
                web.delete(f"{path}/keep", self.let_go),
                web.delete(path, self.delete),
            ]
        return found

    async def list(self, request: web.Request) -> web.Response:
        """Newest first: `?limit=`, `?before=` (unix time, or the `next` of a page), `?event=`.

        Also of a camera that was taken away, as long as it has clips.
        """
        camera, asked = request.match_info["camera"], _asked(request)
        if not self._part.begun:
            self._cameras.get(camera)
            return _json(ClipsView((), ""))
        page = await asyncio.to_thread(
            self._part.library.list,
            camera=camera,
            event=request.query.get("event", ""),
            limit=asked.limit,
            until_s=asked.until_s,
            after=asked.after,
        )
        if not page.clips and not request.query.keys() & {"before", "event"}:
            self._cameras.get(camera)
        return _json(ClipsView(tuple(_view(listed) for listed in page.clips), page.next))

    async def play(self, request: web.Request) -> web.StreamResponse:
        """The video; parts of it where a player asks for ranges."""
        camera = request.match_info["camera"]
        self._check_private(request, camera)
        path = await asyncio.to_thread(self._part.library.path, await self._id(request))
        size = (await asyncio.to_thread(path.stat)).st_size
        if request.method != "HEAD":
            self._view(camera, "clip", path.name, request.remote or "", _asked_bytes(request, size))
        return web.FileResponse(path, headers={**_PLAYED, "Content-Disposition": _inline(path)})

    def _check_private(self, request: web.Request, camera: str) -> None:
        """Nothing can be hidden in what is not encoded anew: such clips stay on the box. Of a camera that was taken
        away nobody knows any more what was to be hidden. Raises FoothillError `forbidden`."""
        there = self._cameras.there.get(camera)
        if there is None:
            self._check_admin(request)
        elif there.config.hiding.hides and not there.config.privacy.clips:
            raise FoothillError(
                "forbidden",
                f"Clips of {camera} show what its privacy hides, and stay on the box. Where that is wanted all the "
                "same, set clips = true in its table privacy.",
            )

    async def keep(self, request: web.Request) -> web.Response:
        self._check_admin(request)
        return _json(await asyncio.to_thread(self._part.library.keep, await self._id(request), True))

    async def let_go(self, request: web.Request) -> web.Response:
        self._check_admin(request)
        return _json(await asyncio.to_thread(self._part.library.keep, await self._id(request), False))

    async def delete(self, request: web.Request) -> web.Response:
        self._check_admin(request)
        await asyncio.to_thread(self._part.library.delete, await self._id(request))
        return web.Response(status=204)

    async def _id(self, request: web.Request) -> str:
        """Raises FoothillError: `not_found`, or `unavailable` while it is being written."""
        told = request.match_info
        if "event" not in told:
            return str(ClipName(told["camera"], told["day"], told["stem"]))
        camera, event = told["camera"], told["event"]
        is_coming = self._part.is_coming(camera, event)
        found = await asyncio.to_thread(self._part.library.of_event, camera, event) if self._part.begun else ""
        if found:
            return found
        if is_coming:
            raise FoothillError(
                "unavailable", "This clip is still being written. Try again in a moment.", retry_after_s=_AGAIN_S
            )
        raise FoothillError(
            "not_found",
            f"There is no clip of {event[:MOST_LETTERS]!r}: none was asked for, it could not be written, or it has "
            "given way to newer ones. List the clips.",
        )


class _Asked(msgspec.Struct, frozen=True):
    limit: int
    until_s: float
    after: str


def _asked(request: web.Request) -> _Asked:
    """Raises FoothillError `bad_request`."""
    unknown = request.query.keys() - {"limit", "before", "event"}
    if unknown:
        raise FoothillError("bad_request", f"Unknown in the address: {', '.join(sorted(unknown))[:MOST_LETTERS]}.")
    limit, before = request.query.get("limit", str(_USUAL_LIMIT)), request.query.get("before", "")
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= MOST_LISTED):
        raise FoothillError("bad_request", f"limit={limit[:40]} is no number from 1 to {MOST_LISTED}.")
    if "/" in before:
        return _Asked(int(limit), float("inf"), before)
    try:
        return _Asked(int(limit), float(before) if before else float("inf"), "")
    except ValueError:
        raise FoothillError("bad_request", f"before={before[:40]} is no unix time, and no `next`.") from None


def _asked_bytes(request: web.Request, size: int) -> int:
    """Of a file of that size."""
    try:
        return len(range(size)[request.http_range])
    except ValueError:
        return 0


def _view(listed: Listed) -> ClipView:
    camera, _, rest = listed.id.partition("/")
    return ClipView(f"/v1/cameras/{camera}/clips/{rest}", listed.clip)


def _inline(path: Path) -> str:
    return f'inline; filename="{path.parent.parent.name}-{path.parent.name}-{path.name}"'


def _json(body: object) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", headers=headers)
