"""Opens what a router tells requests to, and closes it: the log's file, the collector."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from prometheus_client import CollectorRegistry

from router.config import Config
from router.places.client_address import Address
from router.seeing.access_log import AccessLog
from router.seeing.collector import Collector
from router.seeing.spans import Spans
from router.seeing.witness import Losses, Witness
from runtime.links.http.exchanges import Incoming


@asynccontextmanager
async def opened(
    config: Config, address: Callable[[Incoming], Address | None], registry: CollectorRegistry, rng: random.Random
) -> AsyncIterator[Witness]:
    """Raises SettingsError where the file cannot be written, or the library for spans is missing."""
    access_log = AccessLog(config.access_log, rng, time.time) if config.access_log.path else None
    collector = Collector(config.tracing, name=config.name) if config.tracing.endpoint else None
    Losses(
        lambda: access_log.lines.dropped if access_log is not None else 0,
        lambda: collector.dropped if collector is not None else 0,
        registry,
    )
    try:
        with _reopened(access_log):
            yield Witness(access_log, _spans(config, collector), address)
    finally:
        if access_log is not None:
            await asyncio.to_thread(access_log.lines.close)
        if collector is not None:
            await collector.close()


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
