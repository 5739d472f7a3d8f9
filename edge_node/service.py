"""Which bundle answers for a model: a new one, the first of the stored ones that is sound, or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from contracts.errors import FoothillError
from edge_node.loader import Loader, watched
from edge_node.probation import Health, WatchedEngine
from edge_node.records import disk_fails
from edge_node.whole import whole
from runtime.links.bundles.store import BundleStore
from runtime.serving.models.hosting import ModelHost, Served
from runtime.serving.models.loaded import LoadedModel

log = logging.getLogger(__name__)


class Service:
    """`serving` is called with each model just before it answers its first request."""

    def __init__(
        self, store: BundleStore, host: ModelHost, loader: Loader, serving: Callable[[LoadedModel], None]
    ) -> None:
        self._store = store
        self._host = host
        self._loader = loader
        self._serving = serving

    async def serve(self, model: str, loaded: LoadedModel) -> None:
        self._serving(loaded)
        await whole(self._host.activate(model, loaded))

    async def serve_if(self, still: Callable[[], bool], model: str, loaded: LoadedModel) -> bool:
        """As `serve`, if it is still to be served at the very switch; else `loaded` is closed."""

        async def switch() -> bool:
            if not still():
                await asyncio.to_thread(loaded.close)
                return False
            self._serving(loaded)
            await self._host.activate(model, loaded)
            return True

        return await whole(switch())

    async def serve_first_of(self, model: str, *digests: str) -> str:
        """Serves the first bundle that is intact, loads and passes its golden test; else takes the model off.

        Returns what was wrong with those before it, "" when it was the very first.
        """
        errors: list[str] = []
        for digest in filter(None, digests):
            error = await self._serve_stored(model, digest)
            if not error:
                return " ".join(errors)
            log.error("%s: stored bundle %s is not served: %s", model, digest, error)
            errors.append(error)
        await self.end(model)
        return " ".join(errors)

    async def make_way(self, model: str) -> None:
        """Unloads what serves; its callers are told to come back soon."""
        await whole(self._host.retire(model, back_soon="memory is short, and its next bundle is loaded in its place."))

    async def end(self, model: str) -> None:
        """Takes a model off, for good."""
        if self.answers(model):
            await whole(self._host.retire(model))
        self._host.give_up(model)

    async def unload(self, model: str) -> None:
        """Takes a model off until it is loaded again."""
        self._host.give_up(model)
        self._host.unloaded.add(model)
        if self.answers(model):
            await whole(self._host.retire(model))

    def answers(self, model: str) -> bool:
        return model in self._host.models

    def answers_with(self, model: str, digest: str) -> bool:
        served = self._host.models.get(model)
        return served is not None and served.loaded.digest == digest

    def copy(self, model: str) -> Served | None:
        """What answers for a model; None for nothing. Another one for each time that a bundle is loaded."""
        return self._host.models.get(model)

    def health(self, model: str) -> Health:
        served = self._host.models.get(model)
        engine = served.loaded.engine if served is not None else None
        return engine.health if isinstance(engine, WatchedEngine) else Health()

    async def _serve_stored(self, model: str, digest: str) -> str:
        """What keeps a stored bundle from being served; "" when it is. Whatever it is, another one may do."""
        try:
            await self._loader.verify(digest)
            await self.serve(model, watched(await self._loader.load(digest)))
        except FoothillError as error:
            return error.message
        except OSError as error:
            return disk_fails(error).message
        except Exception as error:
            log.exception("serving stored bundle %s of %s failed", digest, model)
            return f"{type(error).__name__}: {error}"
        return ""
