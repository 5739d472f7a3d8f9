"""Scripted servers live in a thread of their own, so that blocking and asyncio clients can meet them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.foothill.scripted import Handler, Scripted


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], Scripted]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[Scripted] = []

    def make(handler: Handler) -> Scripted:
        servers.append(Scripted(loop, handler))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
