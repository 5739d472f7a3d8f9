"""Running an aiohttp application as a process: event loop, socket, signals, draining."""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import web

from runtime.links.http.protocol import Runner
from runtime.links.process.memory import keep_freed
from runtime.links.process.notify import Notifier
from runtime.links.process.settings import SettingsError

log = logging.getLogger(__name__)

DRAIN_S = 5.0
_BACKLOG = 1024


def configure_logging(level: int = logging.INFO) -> None:
    """One line a record on stderr. aiohttp's access log stays off: metrics count requests."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


async def start_app(
    app: web.Application,
    host: str,
    port: int,
    *,
    name: str,
    drain_s: float = DRAIN_S,
    tls: ssl.SSLContext | None = None,
    shared: bool = False,
) -> tuple[web.AppRunner, str]:
    """Listens, and returns the runner (its `cleanup()` drains and stops) with the bound URL; port 0 takes a free one.
    `shared`: other processes of the same user may listen there too, and the kernel deals connections out.

    A caller that goes away cancels its handler, and with it whatever the handler waits for upstream.
    Raises SettingsError when the address cannot be bound.
    """
    listening = bind(host, port, name, shared=shared)
    runner = Runner(app, source=name, handler_cancellation=True, shutdown_timeout=drain_s, access_log=None)
    try:
        await runner.setup()
        await web.SockSite(runner, listening, ssl_context=tls, backlog=_BACKLOG).start()
    except BaseException:
        listening.close()
        await runner.cleanup()
        raise
    scheme = "http" if tls is None else "https"
    return runner, f"{scheme}://{_shown(host)}:{listening.getsockname()[1]}"


async def serve_app(
    app: web.Application,
    host: str,
    port: int,
    *,
    name: str,
    ready: Callable[[str], None] | None = None,
    tls: ssl.SSLContext | None = None,
    shared: bool = False,
    stopping: asyncio.Event | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, or until `stopping` is set, then drains what is in flight for up to 5 s. Without
    `tls` in plain HTTP. `shared` as for `start_app`.

    A service manager that asked for it is told when it serves, that it lives, and when it stops.
    """
    stopping, notifier = stop_on_signals(stopping), Notifier.from_environment()
    runner, url = await start_app(app, host, port, name=name, tls=tls, shared=shared)
    async with notifier.life(f"{name} listening on {url}"):
        try:
            log.info("%s listening on %s", name, url)
            if ready is not None:
                ready(url)
            await stopping.wait()
            log.info("%s stops, draining for up to %.0f s", name, DRAIN_S)
            notifier.stopping()
        finally:
            await runner.cleanup()


def run_app(
    app: Callable[[], Awaitable[web.Application]],
    host: str,
    port: int,
    *,
    name: str,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Builds the application inside a new event loop and serves it; the whole life of a process."""

    async def life() -> None:
        await serve_app(await app(), host, port, name=name, ready=ready)

    run_loop(life())


def run_loop(life: Coroutine[Any, Any, None]) -> None:
    """Runs a process's coroutine on uvloop where there is one. A SettingsError is printed and exits with code 2.

    Where it crashes in native code, or is ended by a watchdog's SIGABRT, every thread's stack goes to stderr.
    """
    keep_freed()
    faulthandler.enable()
    try:
        _runner()(life)
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error


def stop_on_signals(stopping: asyncio.Event | None = None) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets: `stopping`, or a new one."""
    stopping = stopping or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run
    return run


def bind(host: str, port: int, name: str, *, shared: bool = False) -> socket.socket:
    """Bound, and not listening yet. `shared` with others of the same user that say so too. Raises SettingsError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"{name}: host {host!r} is no address of this machine. Correct `host`.") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise SettingsError(_cannot_bind(error, host, port, name)) from error
    return listening


def _cannot_bind(error: OSError, host: str, port: int, name: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{name}: port {port} on {host} is already in use. Stop the process that holds it "
            f"(`ss -ltnp 'sport = :{port}'` shows it), or set another `port` in the configuration."
        )
    reason = error.strerror or str(error)
    return f"{name}: cannot listen on {host}:{port} ({reason}). Set another `host` or `port` in the configuration."


def _shown(host: str) -> str:
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
