"""One worker of a router: `python -m router.workers FD`, started by the router's control process alone."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import sys
from contextlib import AsyncExitStack, suppress

from aiohttp import web

from router.wiring import app_of, holder_of, parts_of
from router.workers.frames import Broken, Setup, to_control
from router.workers.link import Link
from runtime.links.http import serve
from runtime.links.http.https import listener_context
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.process.settings import SettingsError

log = logging.getLogger(__name__)


async def work(descriptor: int) -> None:
    """Until a signal, or until the control process is gone. Raises SettingsError when it cannot work."""
    channel = await to_control(socket.socket(fileno=descriptor))
    setup = await channel.receive()
    if not isinstance(setup, Setup):
        raise SettingsError("This process is started by a router, and by nobody else: run `python -m router`.")
    async with AsyncExitStack() as closing:
        # What is odd about the configuration is told once, by the first one.
        logging.disable(logging.WARNING if setup.number > 1 else logging.NOTSET)
        parts = await closing.enter_async_context(parts_of(setup.config, rng=random.Random(), hop_key=setup.hop_key))
        link = Link(channel, setup, parts.nodes, parts.certificates, parts.telemetry)
        closing.push_async_callback(link.close)
        holder = holder_of(parts, link.publish_audit)
        closing.push_async_callback(holder.close)
        app = app_of(parts, holder, link)
        tls = listener_context(parts.config.https)
        logging.disable(logging.NOTSET)
        await _serve(setup, app, tls, link)


async def _serve(setup: Setup, app: web.Application, tls: ssl.SSLContext | None, link: Link) -> None:
    stopping = asyncio.Event()
    hearing = asyncio.create_task(_hear(link, stopping))
    living = asyncio.create_task(link.live())
    try:
        await serve_app(
            app,
            setup.config.host,
            setup.port,
            name=setup.config.name,
            ready=link.ready,
            tls=tls,
            shared=True,
            stopping=stopping,
        )
    finally:
        for task in (hearing, living):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _hear(link: Link, stopping: asyncio.Event) -> None:
    """A worker does not outlive its router: another one may be there already."""
    try:
        await link.hear()
    except Broken as error:
        log.warning("the control process is gone (%s): this worker stops", error)
        stopping.set()


def main() -> None:
    configure_logging()
    logging.getLogger(serve.__name__).setLevel(logging.WARNING)  # where they listen is told once for all of them
    run_loop(work(int(sys.argv[1])))


if __name__ == "__main__":
    main()
