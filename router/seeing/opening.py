"""Opens what a router tells requests to, and closes it: the log's file, the collector."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry

from router.config import Config
from router.places.client_address import Address
from router.seeing.access_log import AccessLog
from router.seeing.collector import Collector
from router.seeing.spans import Spans
from router.seeing.witness import Losses, Witness
from runtime.links.http.exchanges import Incoming


class Seeing:
    """Raises SettingsError where the file cannot be written, or the library for spans is missing."""

    def __init__(
        self,
        config: Config,
        address: Callable[[Incoming], Address | None],
        registry: CollectorRegistry,
        rng: random.Random,
    ) -> None:
        self._log = AccessLog(config.access_log, rng, time.time) if config.access_log.path else None
        name = f"{config.name}-{os.getpid()}"
        self._collector = Collector(config.tracing, name=name) if config.tracing.endpoint else None
        Losses(self._lost_lines, self._lost_spans, registry)
        self.witness = Witness(self._log, _spans(config, self._collector), address)

    async def life(self, _: web.Application) -> AsyncIterator[None]:
        """As long as the application's: what waits is written in the end."""
        with _reopened(self._log):
            yield
        if self._log is not None:
            await asyncio.to_thread(self._log.lines.close)
        if self._collector is not None:
            await self._collector.close()

    def _lost_lines(self) -> int:
        return self._log.lines.dropped if self._log is not None else 0

    def _lost_spans(self) -> int:
        return self._collector.dropped if self._collector is not None else 0


def _spans(config: Config, collector: Collector | None) -> Spans | None:
    if collector is None:
        return None
    return Spans(
        collector,
        sample=config.tracing.sample,
        follow=config.tracing.follow_callers,
        scheme="https" if config.https.cert_file else "http",
        clock=time.monotonic,
        wall=time.time,
    )


@contextmanager
def _reopened(access_log: AccessLog | None) -> Iterator[None]:
    """On SIGHUP, which would end the process otherwise. Signals reach the main thread's event loop alone."""
    if access_log is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, access_log.lines.reopen)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
