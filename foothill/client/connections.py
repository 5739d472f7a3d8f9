"""Connections: the one place where the client does I/O, through httpx. One `Send` in, one `Reply` or `Lost` out."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing

import httpx

from foothill.client.origins import normalise, route
from foothill.client.upstreams import Lost, Reply, Send

_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30.0)
_PLAIN = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "foothill"}
_CONNECTED = "connection.connect_tcp.started"


class Wiring:
    """How to connect: the `connect_to` map, TLS, proxies from the environment or not.

    The TLS context (20 ms to load the authorities) is made with the first https URL, and shared by all clients.
    """

    def __init__(self, connect_to: Mapping[str, str], tls: ssl.SSLContext | None, *, trust_env: bool) -> None:
        self._connect_to = normalise(connect_to)
        self._tls = tls
        self.trust_env = trust_env

    def context(self, scheme: str) -> ssl.SSLContext:
        if scheme == "http":
            return _no_authorities()
        return self._tls or _public_authorities(self.trust_env)

    def request(self, send: Send, trace: Callable[[str, object], object]) -> httpx.Request:
        """Made without the pool's `build_request`, whose merging of defaults takes a tenth of a call's CPU time."""
        way = route(send.base_url, self._connect_to)
        timeout = httpx.Timeout(send.timeout_s, connect=send.connect_s).as_dict()
        extensions: dict[str, object] = {"timeout": timeout, "trace": trace}
        if way.url.startswith("https:"):
            # Over a tunnel the certificate must still be that of the name asked for.
            extensions["sni_hostname"] = way.server_name
        sent = {"Host": way.host, **_PLAIN, **send.headers}
        return httpx.Request(send.method, way.url + send.path, headers=sent, content=send.body, extensions=extensions)


class SyncConnections:
    """Pools for http and https, made when first used."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pools: dict[str, httpx.Client] = {}

    def send(self, send: Send) -> Reply | Lost:
        """The whole exchange within `send.timeout_s`, give or take one read."""
        opened = _Opened()
        request = self._wiring.request(send, opened.note)
        started_s = time.perf_counter()
        try:
            response = self._pool(request.url.scheme).send(request, stream=True)
            with closing(response):
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.perf_counter() - started_s > send.timeout_s:
                        return _late(send)
        except httpx.TransportError as error:
            return _lost(error, send, reused=not opened.new)
        elapsed_ms = (time.perf_counter() - started_s) * 1000.0
        return Reply(response.status_code, response.headers, bytes(body), elapsed_ms, reused=not opened.new)

    def close(self) -> None:
        while self._pools:
            self._pools.popitem()[1].close()

    def _pool(self, scheme: str) -> httpx.Client:
        pool = self._pools.get(scheme)
        if pool is None:
            made = httpx.Client(verify=self._wiring.context(scheme), trust_env=self._wiring.trust_env, limits=_LIMITS)
            pool = self._pools.setdefault(scheme, made)
        return pool


class AsyncConnections:
    """The same for asyncio."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pools: dict[str, httpx.AsyncClient] = {}

    async def send(self, send: Send) -> Reply | Lost:
        """The whole exchange within `send.timeout_s`."""
        opened = _Opened()
        request = self._wiring.request(send, opened.note_async)
        started_s = time.perf_counter()
        try:
            response = await asyncio.wait_for(self._pool(request.url.scheme).send(request), send.timeout_s)
        except asyncio.TimeoutError:
            return _late(send)
        except httpx.TransportError as error:
            return _lost(error, send, reused=not opened.new)
        elapsed_ms = (time.perf_counter() - started_s) * 1000.0
        return Reply(response.status_code, response.headers, response.content, elapsed_ms, reused=not opened.new)

    async def close(self) -> None:
        while self._pools:
            await self._pools.popitem()[1].aclose()

    def _pool(self, scheme: str) -> httpx.AsyncClient:
        if scheme not in self._pools:
            self._pools[scheme] = httpx.AsyncClient(
                verify=self._wiring.context(scheme), trust_env=self._wiring.trust_env, limits=_LIMITS
            )
        return self._pools[scheme]


class _Opened:
    """Whether a request opened a connection of its own, told by httpx's trace extension."""

    def __init__(self) -> None:
        self.new = False

    def note(self, event: str, _info: object) -> None:
        self.new = self.new or event == _CONNECTED

    async def note_async(self, event: str, info: object) -> None:
        self.note(event, info)


@functools.cache
def _no_authorities() -> ssl.SSLContext:
    """For plain http, which never uses it: httpx insists on a context. It would trust nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@functools.cache
def _public_authorities(trust_env: bool) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=trust_env)


def _late(send: Send) -> Lost:
    return Lost("late", f"no answer within {send.timeout_s * 1000.0:.0f} ms")


def _lost(error: httpx.TransportError, send: Send, *, reused: bool) -> Lost:
    detail = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return Lost("refused", f"no connection within {send.connect_s * 1000.0:.0f} ms")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return Lost("refused", f"no connection: {detail}")
    if isinstance(error, httpx.TimeoutException):
        return _late(send)
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return Lost("cut", f"the connection was lost: {detail}", reused)
    raise error
