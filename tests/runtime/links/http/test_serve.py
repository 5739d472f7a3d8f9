"""Running as a process: ready, draining on a signal, and a clear word about a busy port."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import textwrap

import aiohttp
import pytest
from aiohttp import web

from runtime.links.http.serve import start_app
from runtime.links.process.settings import SettingsError

PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from aiohttp import web
    from runtime.links.http.serve import configure_logging, run_app

    async def slow(request):
        print("begun", flush=True)
        await asyncio.sleep(0.3)
        return web.Response(text=type(asyncio.get_running_loop()).__module__)

    async def build():
        app = web.Application()
        app.router.add_get("/", slow)
        return app

    configure_logging()
    run_app(build, "127.0.0.1", int(sys.argv[1]), name="tester", ready=lambda url: print(url, flush=True))
    """
)


def started(port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def fetched(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def test_a_process_serves_on_uvloop_and_drains_on_sigterm() -> None:
    process = started(0)
    assert process.stdout is not None
    url = (await asyncio.to_thread(process.stdout.readline)).strip()
    asking = asyncio.create_task(fetched(url))
    assert (await asyncio.to_thread(process.stdout.readline)).strip() == "begun"
    process.send_signal(signal.SIGTERM)
    assert await asking == "uvloop"
    _, told = await asyncio.to_thread(process.communicate, timeout=10)
    assert process.returncode == 0
    assert f"tester listening on {url}" in told


def test_a_busy_port_exits_with_2_and_says_how_to_change_it() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        process = started(port)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 2
    assert f"port {port} on 127.0.0.1 is already in use" in told
    assert "set another `port`" in told
    assert "Traceback" not in told


async def test_a_host_of_nobody_is_refused() -> None:
    with pytest.raises(SettingsError, match="host 'no\\.such\\.host\\.invalid'"):
        await start_app(web.Application(), "no.such.host.invalid", 0, name="tester")


async def test_a_caller_that_goes_away_cancels_its_handler() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    runner, url = await start_app(app, "127.0.0.1", 0, name="tester", drain_s=0.1)
    asking = asyncio.create_task(fetched(url))
    await asyncio.wait_for(begun.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)
    await runner.cleanup()
