"""The routes of cameras: views, changes, pictures, and what is said while it is said."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from edge_node.cameras.cameras import Cameras
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.feed import Feed, Said, type_of
from edge_node.cameras.live import Look
from edge_node.cameras.outlets.listeners import Line, Wanted
from edge_node.cameras.roster import Roster
from edge_node.cameras.web.hosts import PATHS
from edge_node.cameras.web.views import view
from runtime.links.access.admission import bearer
from runtime.links.http.bodies import read_small
from runtime.links.process.within import within

BEAT_S = 10.0
MAX_LISTENERS = 64
MAX_DIGITS = 15
PATIENCE_S = 30.0
"""For who takes nothing of what he is sent: his place is another's then."""
LIVE_FPS = 10.0
_PAGE = Path(__file__).with_name("page.html")
_FIRST_PICTURE_S = 5.0
_STRICT = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


View = Callable[[str, str, str, str, int], None]
"""(camera, what, about what, to whom, bytes): a piece of something goes to who looks at it."""


class CameraRoutes:
    """`admin_token` "" closes what changes cameras. `view` is told of each picture that goes."""

    def __init__(
        self,
        cameras: Cameras,
        roster: Roster,
        feed: Feed,
        *,
        admin_token: str,
        view: View,
        beat_s: float = BEAT_S,
    ) -> None:
        self._cameras = cameras
        self._roster = roster
        self._feed = feed
        self._view = view
        self._admin_token = admin_token.encode()
        self._beat_s = beat_s
        self.listeners = 0
        self._ending = asyncio.Event()

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.get("/cameras", self.page),
            web.get("/v1/cameras", self.views),
            web.get("/v1/cameras/events", self.events, allow_head=False),
            web.get("/v1/cameras/socket", self.socket),
            web.get("/v1/cameras/{camera}", self.one),
            web.put("/v1/cameras/{camera}", self.put),
            web.delete("/v1/cameras/{camera}", self.remove),
            web.get("/v1/cameras/{camera}/snapshot", self.snapshot),
            web.get("/v1/cameras/{camera}/live", self.live, allow_head=False),
        ]

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(body=_PAGE.read_bytes(), content_type="text/html", charset="utf-8", headers=_STRICT)

    async def views(self, _: web.Request) -> web.Response:
        there = sorted(self._cameras.there.items())
        return _json([view(camera, self._roster.managed(name)) for name, camera in there])

    async def one(self, request: web.Request) -> web.Response:
        camera = self._cameras.get(request.match_info["camera"])
        return _json(view(camera, self._roster.managed(camera.name)))

    async def put(self, request: web.Request) -> web.Response:
        """The body holds the keys of a camera, but for its name."""
        self.check_admin(request)
        name = request.match_info["camera"]
        config = _config(name, await read_small(request))
        is_new = await self._roster.put(config)
        return _json(view(self._cameras.get(name), "api"), 201 if is_new else 200)

    async def remove(self, request: web.Request) -> web.Response:
        self.check_admin(request)
        await self._roster.remove(request.match_info["camera"])
        return web.Response(status=204)

    async def snapshot(self, request: web.Request) -> web.Response:
        """The newest picture as a JPEG, with what was found in it."""
        camera = self._cameras.get(request.match_info["camera"])
        live = camera.live
        try:
            look = await within(live.look(), _FIRST_PICTURE_S)
        except asyncio.TimeoutError:
            raise FoothillError(
                "unavailable", "This camera has given no picture yet. Try again.", retry_after_s=2.0
            ) from None
        if request.method != "HEAD":
            self._view(camera.name, "view", "live", request.remote or "", len(look.jpeg))
        headers = {"Cache-Control": "no-store", "Foothill-Captured-At": f"{look.at_s:.3f}"}
        return web.Response(body=look.jpeg, content_type="image/jpeg", headers=headers)

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Motion JPEG: each picture once it is there, those that a slow reader missed left out."""
        name, loop = request.match_info["camera"], asyncio.get_running_loop()
        self._cameras.get(name)
        with self._admitted():
            response = web.StreamResponse(headers={"Cache-Control": "no-store"})
            response.headers["Content-Type"] = "multipart/x-mixed-replace; boundary=picture"
            await response.prepare(request)
            async for look in self._looks(name):
                began_s = loop.time()
                self._view(name, "view", "live", request.remote or "", len(look.jpeg))
                head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(look.jpeg)}\r\n\r\n"
                await _send(request, response, head.encode() + look.jpeg + b"\r\n")
                await asyncio.sleep(max(0.0, began_s + 1.0 / LIVE_FPS - loop.time()))
        return response

    async def _looks(self, name: str) -> AsyncIterator[Look]:
        """Each new picture of the camera that has this name now, until there is none. What one that was changed shows
        is not shown any more."""
        camera, number = self._cameras.there.get(name), 0
        while camera is not None and not self._ending.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                look = await within(camera.live.look(number), self._beat_s)
                number = look.number
                if self._cameras.there.get(name) is camera:
                    yield look
            now = self._cameras.there.get(name)
            camera, number = now, number if now is camera else 0

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events (WHATWG HTML, 9.2), named by their types; what stands comes first, and before it what was
        said since the last one that the caller has heard, or so many of the last ones as it asks for."""
        wanted = self._wanted(request)
        with self._admitted(), Line(self._feed, wanted, missed=self._missed(request)) as line:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await response.prepare(request)
            lost = 0
            while not self._ending.is_set():
                try:
                    said = await within(line.next(), self._beat_s)
                except asyncio.TimeoutError:
                    await _send(request, response, b": alive\n\n")
                    continue
                if line.lost > lost:
                    lost = line.lost
                    await _send(request, response, b'event: lost\ndata: {"lost":%d}\n\n' % lost)
                await _send(request, response, _event(said))
        return response

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Each message as text; a slow reader gets the newest of each event, not all of them."""
        _check_own_page(request)
        wanted = self._wanted(request)
        with self._admitted(), Line(self._feed, wanted, keeps_latest=True) as line:
            socket = web.WebSocketResponse(heartbeat=self._beat_s, max_msg_size=1024)
            await socket.prepare(request)
            sending = asyncio.create_task(_send_all(socket, line))
            ending = asyncio.create_task(self._ending.wait())
            hearing = asyncio.create_task(_hear_out(socket))
            try:
                await asyncio.wait({sending, ending, hearing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, ending, hearing):
                    task.cancel()
                await asyncio.gather(sending, ending, hearing, return_exceptions=True)
                await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket

    async def end(self, _: web.Application) -> None:
        """Lets go of all who listen or look, so that the server can stop."""
        self._ending.set()

    def _missed(self, request: web.Request) -> Sequence[Said]:
        """Raises FoothillError `bad_request`."""
        epoch, _, number = request.headers.get("Last-Event-ID", "").partition(".")
        if epoch == str(self._feed.epoch) and number.isdecimal() and len(number) <= MAX_DIGITS:
            return self._feed.since(int(number))
        recent = request.query.get("recent", "0")
        if not recent.isdecimal() or len(recent) > MAX_DIGITS:
            raise FoothillError("bad_request", f"recent={recent[:40]} is no number: write recent=50.")
        return self._feed.latest(int(recent))

    def _wanted(self, request: web.Request) -> Wanted:
        """`?camera=NAME&type=TYPE`, each of them as often as wanted. Raises FoothillError `bad_request`."""
        unknown = request.query.keys() - {"camera", "type", "recent"}
        if unknown:
            raise FoothillError("bad_request", f"Unknown in the address: {', '.join(sorted(unknown))[:200]}.")
        cameras, types = frozenset(request.query.getall("camera", [])), frozenset(request.query.getall("type", []))

        def wanted(said: Said) -> bool:
            return (not cameras or said.camera in cameras) and (not types or type_of(said) in types)

        return wanted

    def _admitted(self) -> _Place:
        return _Place(self)

    def check_admin(self, request: web.Request) -> None:
        """Raises FoothillError `forbidden`."""
        token = bearer(request.headers.get("Authorization")).encode(errors="replace")
        if not self._admin_token or not hmac.compare_digest(token, self._admin_token):
            raise FoothillError(
                "forbidden", "Changing cameras needs this node's admin token: send `Authorization: Bearer TOKEN`."
            )

    def enter(self) -> None:
        if self.listeners >= MAX_LISTENERS:
            raise FoothillError(
                "overloaded", f"{MAX_LISTENERS} listen or look already. Try again later.", retry_after_s=5.0
            )
        self.listeners += 1

    def leave(self) -> None:
        self.listeners -= 1


class _Gone(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """Who listened or looked does not any more."""


class _Place:
    """One of the places for those who listen or look, until they are gone. Raises FoothillError `overloaded` where none
    is left."""

    def __init__(self, routes: CameraRoutes) -> None:
        self._routes = routes

    def __enter__(self) -> None:
        self._routes.enter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._routes.leave()
        return kind is _Gone


@web.middleware
async def for_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A browser asks its user for a password where it is told so: any name, and a token."""
    answer = await handler(request)
    if answer.status == 401 and request.path.startswith(PATHS) and not answer.prepared:
        answer.headers["WWW-Authenticate"] = 'Basic realm="foothill", charset="UTF-8"'
    return answer


def _check_own_page(request: web.Request) -> None:
    """Browsers let any page open a WebSocket to anywhere, and read it (RFC 6455, 10.2): no page but this node's may.
    Raises FoothillError `forbidden`."""
    origin = request.headers.get("Origin", "")
    is_own = origin.partition("://")[2] == request.host or request.headers.get("Sec-Fetch-Site") == "same-origin"
    if origin and not is_own:
        raise FoothillError(
            "forbidden", f"A page of {origin[:80]} listens here, and only this node's own may. Ask from its server."
        )


async def _send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Raises _Gone where the caller takes nothing for so long that he is let go."""
    try:
        await within(response.write(data), PATIENCE_S)
    except asyncio.TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise _Gone from None


async def _send_all(socket: web.WebSocketResponse, line: Line) -> None:
    while True:
        said = await line.next()
        await within(socket.send_str(said.body.decode()), PATIENCE_S)


async def _hear_out(socket: web.WebSocketResponse) -> None:
    """Nobody has anything to say here; it ends with the connection."""
    async for _ in socket:
        pass


def _config(name: str, body: bytes) -> CameraConfig:
    """Raises FoothillError `bad_request`."""
    try:
        told = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "name" in told:
            raise FoothillError("bad_request", "The name stands in the path: leave it out of the body.")
        config = msgspec.json.decode(msgspec.json.encode({"name": name, **told}), type=CameraConfig)
    except UNREADABLE as error:
        raise FoothillError("bad_request", f"The body is refused: {error}. docs/cameras.md lists the keys.") from error
    if config.escalation.function:
        raise FoothillError(
            "bad_request", "escalation.function runs a file: only the node's own configuration names it."
        )
    return config


def _event(said: Said) -> bytes:
    return b"event: %b\nid: %d.%d\ndata: %b\n\n" % (
        type_of(said).encode(),
        said.message.epoch,
        said.number,
        said.body,
    )


def _json(body: object, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)
