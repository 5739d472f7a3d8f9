"""The routes that only the holder of the admin token may use: load, unload, and the files of bundles."""

from __future__ import annotations

import hmac
from typing import Any

import msgspec
from aiohttp import web

from contracts.decoding import UNREADABLE
from contracts.errors import FoothillError
from runtime.links.http.bodies import read_small
from runtime.serving.repository import Repository

_SCHEME = "bearer "


class LoadRequest(msgspec.Struct, frozen=True):
    """The body of the protocol's load route."""

    parameters: dict[str, Any] = {}


class Admin:
    """Without a token or a repository every route is closed."""

    def __init__(self, repository: Repository | None, token: str) -> None:
        self._repository = repository
        self._token = token

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2/repository/models/{model}/load", self.load),
            web.post("/v2/repository/models/{model}/unload", self.unload),
            web.get("/v1/bundles/{digest}/{file:.+}", self.file),
        ]

    async def load(self, request: web.Request) -> web.Response:
        """Serves the model again from the verified bundle it had. A body that brings another one is refused."""
        repository = self._opened(request)
        _check_nothing_brought(await read_small(request))
        await repository.load(request.match_info["model"])
        return web.Response()

    async def unload(self, request: web.Request) -> web.Response:
        await self._opened(request).unload(request.match_info["model"])
        return web.Response()

    async def file(self, request: web.Request) -> web.FileResponse:
        found = self._opened(request).file(request.match_info["digest"], request.match_info["file"])
        return web.FileResponse(found)

    def _opened(self, request: web.Request) -> Repository:
        """Raises FoothillError `forbidden` without the admin token."""
        given = request.headers.get("Authorization", "")
        token = given[len(_SCHEME) :].strip() if given.lower().startswith(_SCHEME) else ""
        right = bool(self._token) and hmac.compare_digest(token.encode(errors="replace"), self._token.encode())
        if not right or self._repository is None:
            raise FoothillError(
                "forbidden", "This needs this server's admin token: send `Authorization: Bearer TOKEN`."
            )
        return self._repository


def _check_nothing_brought(body: bytes) -> None:
    """Raises FoothillError `bad_request` for files or a configuration: nobody has signed them."""
    try:
        brought = [*msgspec.json.decode(body or b"{}", type=LoadRequest).parameters]
    except UNREADABLE as error:
        raise FoothillError("bad_request", f"The body is no load request of the protocol: {error}.") from error
    if brought:
        raise FoothillError(
            "bad_request",
            f"Only signed bundles are loaded, as they are: {', '.join(brought)[:200]} cannot be brought along. "
            f"Send no parameters; publish a new bundle to change the model.",
        )
