"""The spool put together: its file, its courier, what callers see of it, and their common life."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from contracts.messages import Late
from edge_node.courier import Ask, Courier
from edge_node.late_answers import LateAnswers, Spooling, message
from edge_node.spool import Spool
from edge_node.spool_file import Doubtful, LateAnswer, SpoolConfig
from edge_node.spool_metrics import SpoolMetrics


class LatePart:
    """Everything of a node that has to do with late answers. `publish` tells the fleet of one, when it can.

    `hearers` in the node itself are told of each when it is there, and after a start of those again that the fleet has
    not heard of. `deniers` say of an input whether it must not go any more. They must neither block nor fail. Nothing
    is delivered before all of `held` are set.
    """

    def __init__(
        self,
        directory: Path,
        config: SpoolConfig,
        *,
        node: str,
        ask: Ask,
        publish: Callable[[Late], bool],
        registry: CollectorRegistry,
        reserve_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.spool = Spool(directory, config, SpoolMetrics(registry), wall, reserve_bytes=reserve_bytes)
        self.spooling = Spooling(self.spool, clock, wall)
        self.hearers: list[Callable[[LateAnswer], None]] = []
        self.deniers: list[Callable[[Doubtful], bool]] = []
        self.held: list[asyncio.Event] = []
        self._answers = LateAnswers(self.spool)
        self._courier = Courier(
            self.spool,
            ask,
            lambda late: publish(message(node, late)),
            self._hear,
            may_go=self._may_go,
            held=self.held,
            per_s=config.per_s,
            wall=wall,
            rng=rng or random.Random(),
        )

    def live_in(self, app: web.Application) -> None:
        """Serves the late answers, and delivers while the application runs."""
        app.add_routes(self._answers.routes())
        app.cleanup_ctx.append(self._life)

    def _hear(self, late: LateAnswer) -> None:
        for hearer in self.hearers:
            hearer(late)

    def _may_go(self, doubtful: Doubtful) -> bool:
        return not any(denies(doubtful) for denies in self.deniers)

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        self._courier.start()
        yield
        await self._courier.stop()
        await self.spool.close()
