"""Which cameras there are to be: those of the configuration file, and those that the API has added."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Literal

from contracts.errors import FoothillError
from edge_node.cameras.cameras import Cameras
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.lent import Lent

log = logging.getLogger(__name__)

Managed = Literal["file", "api"]


class Roster:
    """A name belongs to the file or to the API; where both have it, to the file. `checks` raise FoothillError for one
    of the API's that this node refuses."""

    def __init__(
        self,
        cameras: Cameras,
        lent: Lent,
        from_file: tuple[CameraConfig, ...],
        *,
        checks: Sequence[Callable[[CameraConfig], None]] = (),
    ) -> None:
        self._cameras = cameras
        self._lent = lent
        self._checks = checks
        self._from_file = {camera.name: camera for camera in from_file}
        self._from_api: dict[str, CameraConfig] = {}
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Raises FoothillError for a file of the API's that cannot be read."""
        self._from_api = {camera.name: camera for camera in await asyncio.to_thread(self._lent.read)}
        await self._become()

    def managed(self, name: str) -> Managed:
        return "file" if name in self._from_file else "api"

    async def reload(self, from_file: tuple[CameraConfig, ...]) -> None:
        """What the file says now. Cameras that stay as they were do not notice."""
        async with self._changing:
            self._from_file = {camera.name: camera for camera in from_file}
            await self._become()

    async def put(self, config: CameraConfig) -> bool:
        """Whether it is a new one. Raises FoothillError `conflict` for a camera of the file's, or one too many, and
        `unavailable` where it cannot be kept."""
        async with self._changing:
            self._check_free(config.name)
            for check in self._checks:
                check(config)
            self._cameras.check_room(config.name)
            is_new = config.name not in self._from_api
            await self._keep({**self._from_api, config.name: config})
            await self._cameras.put(config)
            return is_new

    async def remove(self, name: str) -> None:
        """Raises FoothillError `not_found`, `conflict` or `unavailable`."""
        async with self._changing:
            self._cameras.get(name)
            self._check_free(name)
            await self._keep({other: config for other, config in self._from_api.items() if other != name})
            await self._cameras.remove(name)

    async def _become(self) -> None:
        double = sorted(self._from_api.keys() & self._from_file.keys())
        if double:
            log.warning("cameras %s: the configuration file's are taken, not the API's", ", ".join(double))
        await self._cameras.become(tuple({**self._from_api, **self._from_file}.values()))

    async def _keep(self, from_api: dict[str, CameraConfig]) -> None:
        await asyncio.to_thread(self._lent.write, tuple(from_api.values()))
        self._from_api = from_api

    def _check_free(self, name: str) -> None:
        if name in self._from_file:
            raise FoothillError("conflict", f"Camera {name} stands in the node's configuration file: change it there.")
