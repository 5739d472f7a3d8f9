"""A process that only passes requests on, with aiohttp: `python -m benchmarks.bare_proxy URL READY_FILE [PORT]`.

What the framework alone costs, beside which the router's cost is told.
"""

from __future__ import annotations

import sys

import aiohttp
from aiohttp import web

from benchmarks.told import tell_ready
from runtime.links.http.serve import run_loop, serve_app

_HOP_BY_HOP = frozenset({"connection", "content-length", "date", "host", "server", "transfer-encoding"})


async def run(url: str, ready: str, port: str = "0") -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def relay(request: web.Request) -> web.Response:
            sent = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
            body = await request.read()
            async with session.post(url + request.raw_path, data=body, headers=sent) as answer:
                told = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=answer.status, body=await answer.read(), headers=told)

        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/{path:.*}", relay)
        await serve_app(app, "127.0.0.1", int(port), name="bare proxy", ready=lambda bound: tell_ready(ready, bound))


if __name__ == "__main__":
    run_loop(run(*sys.argv[1:4]))
