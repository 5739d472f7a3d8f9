"""The process that puts distance between others: `python -m foothill.simulators.wan LINKS.json --ready-file FILE`."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from aiohttp import web

from foothill.simulators.links import LinkCounts, Links, Ready
from foothill.simulators.relay import Relay, Timeline


async def run(links: Links, *, ready_file: Path | None, stop: asyncio.Event) -> None:
    """Relays until `stop` is set. Raises OSError when a port is taken."""
    loop = asyncio.get_running_loop()
    timeline = Timeline(loop)
    relays = [Relay(link, timeline, loop) for link in links.links]
    control = web.AppRunner(_control(relays), access_log=None)
    try:
        for relay in relays:
            await relay.listen(links.host)
        await control.setup()
        await web.TCPSite(control, links.host, links.control_port).start()
        port = control.addresses[0][1]
        if ready_file is not None:
            ports = {relay.link.name: relay.port for relay in relays}
            _write(ready_file, Ready(f"http://{links.host}:{port}", links.host, ports))
        await stop.wait()
    finally:
        await control.cleanup()
        for relay in relays:
            await relay.close()


def read_links(path: Path) -> Links:
    """Raises ValueError (msgspec.DecodeError is one) that names what is wrong with the file."""
    links = msgspec.json.decode(path.read_bytes(), type=Links)
    for link in links.links:
        host, _, port = link.target.rpartition(":")
        if not host or not port.isdigit() or not 0 <= link.rtt_ms <= 60_000:
            raise ValueError(f"link {link.name!r}: target must be host:port and rtt_ms within 0..60000")
    if len({link.name for link in links.links}) != len(links.links):
        raise ValueError("every link needs a name of its own")
    return links


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m foothill.simulators.wan", description=__doc__)
    parser.add_argument("links", type=Path, help="JSON: {links: [{name, target, rtt_ms, port}], host, control_port}")
    parser.add_argument("--ready-file", type=Path, help="where to write the chosen ports, as JSON, once all listen")
    options = parser.parse_args(arguments)
    try:
        links = read_links(options.links)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"wan: {options.links}: {error}\n")
        return 2
    _allow_many_files()
    try:
        _run_loop(links, options.ready_file)
    except OSError as error:
        sys.stderr.write(f"wan: {error}. Choose other ports in {options.links}, or 0.\n")
        return 2
    return 0


async def _until_signalled(links: Links, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(links, ready_file=ready_file, stop=stop)


def _run_loop(links: Links, ready_file: Path | None) -> None:
    # uvloop rounds its timers to the nearest millisecond where asyncio rounds up, so distances come out truer.
    if importlib.util.find_spec("uvloop") is None:
        asyncio.run(_until_signalled(links, ready_file))
    else:
        import uvloop

        uvloop.run(_until_signalled(links, ready_file))


def _control(relays: Sequence[Relay]) -> web.Application:
    async def counts(_request: web.Request) -> web.Response:
        body = msgspec.json.encode(LinkCounts(tuple(relay.count() for relay in relays)))
        return web.Response(body=body, content_type="application/json")

    async def healthy(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/links", counts)
    app.router.add_get("/healthz", healthy)
    return app


def _write(path: Path, ready: Ready) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(ready))
    os.replace(partial, path)


def _allow_many_files() -> None:
    """Two descriptors a connection: takes as many as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
