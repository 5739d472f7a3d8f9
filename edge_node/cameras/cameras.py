"""All cameras of a node: added, changed and taken away one by one, while the others go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from contracts.errors import FoothillError
from edge_node.cameras.camera import Camera
from edge_node.cameras.config import MAX_CAMERAS, CameraConfig
from edge_node.cameras.escalation.asks import Asks
from edge_node.cameras.feed import Feed

log = logging.getLogger(__name__)

Build = Callable[[CameraConfig], Camera]


class Cameras:
    """`build` makes one that has not started. Changes come one at a time. What is asked in their name
    ends with the last of them."""

    def __init__(self, build: Build, feed: Feed, asks: Asks) -> None:
        self._build = build
        self._feed = feed
        self._asks = asks
        self._there: dict[str, Camera] = {}
        self._changing = asyncio.Lock()

    @property
    def there(self) -> Mapping[str, Camera]:
        return self._there

    def get(self, name: str) -> Camera:
        """Raises FoothillError `not_found`."""
        camera = self._there.get(name)
        if camera is None:
            known = ", ".join(sorted(self._there)) or "none"
            raise FoothillError("not_found", f"There is no camera {name[:80]!r}. There are: {known}.")
        return camera

    def check_room(self, name: str) -> None:
        """Raises FoothillError `conflict` where one of that name would be one too many."""
        if name not in self._there and len(self._there) >= MAX_CAMERAS:
            raise FoothillError("conflict", f"{MAX_CAMERAS} cameras are watched already. Take one away first.")

    async def put(self, config: CameraConfig) -> None:
        """Adds a camera, or changes one: it begins anew, unless nothing changes. Raises FoothillError `conflict` where
        there are too many."""
        async with self._changing:
            old = self._there.get(config.name)
            if old is not None and old.config == config:
                return
            self.check_room(config.name)
            new = self._build(config)
            if old is not None:
                await old.stop()
            self._there[config.name] = new
            new.start()

    async def remove(self, name: str) -> None:
        """Raises FoothillError `not_found`."""
        async with self._changing:
            camera = self.get(name)
            await camera.stop()
            del self._there[name]
            self._feed.forget(name)

    async def become(self, configs: Sequence[CameraConfig]) -> None:
        """Just these are there from now on. Those that stay as they were do not notice."""
        wanted = {config.name for config in configs}
        for name in [name for name in self._there if name not in wanted]:
            await self.remove(name)
        for config in configs:
            await self.put(config)

    async def close(self) -> None:
        async with self._changing:
            await asyncio.gather(*(camera.stop() for camera in self._there.values()))
            self._there.clear()
        await self._asks.finish()
