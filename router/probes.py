"""Asks static nodes how they are, off the way of requests: few at a time, each in its own time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from contracts.timing import TOTAL, parse_server_timing
from router.config import StaticNode
from router.health import Event
from router.node import Node
from router.nodes import Nodes
from runtime.links.http.upstream import Answer, Request, Upstreams, UpstreamUnreachable

log = logging.getLogger(__name__)

MOST_AT_ONCE = 32
JITTER = 0.1
SOON = 0.1
"""After this share of the interval a node is asked again that is away, or of which a probe has said something new."""


Told = Callable[[str, Event, "float | None"], None]
"""Hears what a probe of the node with this name has found, and the round trip in ms where it tells one."""


def unheard(_: str, event: Event, rtt_ms: float | None) -> None:
    """For where nobody else has to know."""


class Probes:
    """GET of each static node's `health_path`, every `interval_s` or so; 200 within `timeout_s` is good.

    All are asked once at the start, and then spread over the interval. `told` hears all of them. `clock` is
    monotonic, in seconds.
    """

    def __init__(
        self,
        nodes: Nodes,
        static: Iterable[StaticNode],
        upstreams: Upstreams,
        rng: random.Random,
        *,
        interval_s: float,
        timeout_s: float,
        told: Told = unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = nodes
        self._paths: Mapping[str, str] = {told.name: told.health_path for told in static if told.health_path}
        self._upstreams = upstreams
        self._rng = rng
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._told = told
        self._clock = clock
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._probing: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        found = ((self._nodes.get(name), path) for name, path in self._paths.items())
        self._probing = [asyncio.create_task(self._follow(node, path)) for node, path in found if node is not None]

    async def stop(self) -> None:
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)

    async def _follow(self, node: Node, path: str) -> None:
        """For as long as the node is in the table: a signed identity may have taken its name to another place."""
        pause_s = self._interval_s * self._rng.random()
        while self._nodes.get(node.name) is node:
            async with self._room:
                await self._probe(node, path)
            if node.health is not None and not node.health.settled:
                pause_s = min(pause_s, SOON * self._interval_s)
            await asyncio.sleep(pause_s)
            pause_s = self._interval_s * self._rng.uniform(1.0 - JITTER, 1.0 + JITTER)

    async def _probe(self, node: Node, path: str) -> None:
        was, kept = node.state, self._connected(node)
        answer = await self._asked(node, path)
        event: Event = "good" if answer is not None and answer.status == 200 else "bad"
        rtt_ms = _rtt_ms(answer) if kept and answer is not None else None
        node.put_probe(event, self._clock(), rtt_ms=rtt_ms)
        self._told(node.name, event, rtt_ms)
        if node.state != was:
            log.info("node %s is %s, as its probes say", node.name, node.state)

    async def _asked(self, node: Node, path: str) -> Answer | None:
        deadline = Deadline.after(self._timeout_s * 1000.0, now_s=self._clock())
        try:
            return await self._upstreams.send(
                node.identity.url, Request("GET", path, {}), deadline=deadline, clock=self._clock
            )
        except (UpstreamUnreachable, FoothillError) as error:
            log.debug("node %s is not well: %s", node.name, error)
            return None

    def _connected(self, node: Node) -> bool:
        """What a probe takes that has to connect first says little of the distance."""
        try:
            return self._upstreams.place(node.identity.url).pool.spare
        except UpstreamUnreachable:
            return False


def _rtt_ms(answer: Answer) -> float:
    """The hop, less what the node says that it took itself."""
    own_ms = parse_server_timing(answer.headers.get(headers.SERVER_TIMING)).get(TOTAL, 0.0)
    return max(0.0, answer.hop_ms - own_ms)
