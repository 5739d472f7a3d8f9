"""The HTTP client between hops: pooled, bounded, under a deadline, its failures named."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Mapping
from ssl import SSLContext
from types import SimpleNamespace

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from contracts import headers
from contracts.deadlines import Deadline
from contracts.errors import FoothillError

MAX_BODY_BYTES = 64 << 20
CONNECT_TIMEOUT_S = 2.0
_CONNECTIONS = 1024
_CONNECTIONS_PER_ORIGIN = 256
_IDLE_S = 30.0
_PLAIN_BODY_BYTES = 1 << 20


class Request(msgspec.Struct, frozen=True):
    """One HTTP request. `path` starts with '/' and carries the query, both already percent-encoded."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer. `headers` ignore case; `hop_ms` runs from the first byte sent to the last received."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    hop_ms: float = 0.0


class UpstreamUnreachable(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """No answer came from `url`. `sent` tells whether bytes of the request may have reached it."""

    def __init__(self, url: str, *, sent: bool, reason: str) -> None:
        super().__init__(f"{url} gave no answer: {reason}")
        self.url = url
        self.sent = sent
        self.reason = reason


def answer_headers(given: Mapping[str, str]) -> Mapping[str, str]:
    """Headers that ignore case, for an Answer made in this process."""
    return CIMultiDict(given)


class Upstreams:
    """A bounded pool of connections to any number of upstreams. Create it inside a running loop, close it at the end.

    `connect_to` maps an origin `http://host:port` to the origin to connect to in its place, like curl's --connect-to.
    """

    def __init__(
        self,
        *,
        connect_to: Mapping[str, str] | None = None,
        ssl: SSLContext | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._connect_to = {_origin(URL(origin)): URL(target) for origin, target in (connect_to or {}).items()}
        self._max_body_bytes = max_body_bytes
        self._connect_timeout_s = connect_timeout_s
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        tracing.on_request_headers_sent.append(_note_sent)
        self._pooled = _session(ssl, tracing, fresh=False)
        self._fresh = _session(ssl, tracing, fresh=True)

    async def send(
        self,
        base_url: str,
        request: Request,
        *,
        deadline: Deadline,
        clock: Callable[[], float] = time.monotonic,
    ) -> Answer:
        """Any HTTP answer is an Answer. Raises UpstreamUnreachable, or FoothillError `deadline_exceeded` when time is
        up and `upstream_failed` for an answer over the limit. Cancelling the caller closes the connection.

        A pooled connection that the upstream closed meanwhile costs one retry, on a new connection.
        """
        seen = SimpleNamespace(reused=False, sent=False, received=False)
        try:
            return await self._once(self._pooled, base_url, request, deadline, clock, seen)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if not _stale(error, seen):
                raise _unreachable(base_url, error, seen) from error
        except aiohttp.ClientError as error:
            raise _unreachable(base_url, error, seen) from error
        try:
            return await self._once(self._fresh, base_url, request, deadline, clock, seen)
        except aiohttp.ClientError as error:
            raise _unreachable(base_url, error, seen) from error

    async def close(self) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def _once(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        request: Request,
        deadline: Deadline,
        clock: Callable[[], float],
        seen: SimpleNamespace,
    ) -> Answer:
        if session.closed:
            raise UpstreamUnreachable(base_url, sent=False, reason="this process stops")
        started_s = clock()
        deadline.check(started_s, f"{base_url} was asked")
        url, host = self._target(base_url, request.path)
        sent = {**request.headers, headers.DEADLINE_MS: _milliseconds(deadline.left_ms(started_s))}
        if host is not None:
            sent["Host"] = host
        try:
            async with session.request(
                request.method,
                url,
                headers=sent,
                data=_data(request.body),
                allow_redirects=False,
                timeout=self._timeout(deadline.left_s(started_s)),
                trace_request_ctx=seen,
            ) as response:
                seen.received = True
                body = await self._read(base_url, response)
                hop_ms = (clock() - started_s) * 1000.0
                return Answer(response.status, response.headers, body, hop_ms)
        except aiohttp.ConnectionTimeoutError as error:
            reason = f"no connection within {self._connect_timeout_s:g} s"
            raise UpstreamUnreachable(base_url, sent=False, reason=reason) from error
        except asyncio.TimeoutError as error:
            raise FoothillError(
                "deadline_exceeded",
                f"{base_url} did not answer within {deadline.left_ms(started_s):.0f} ms. "
                "Send a larger Foothill-Deadline-Ms, or ask a nearer node.",
            ) from error

    async def _read(self, base_url: str, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        received = 0
        while not response.content.at_eof():
            part = await response.content.readany()
            received += len(part)
            if received > self._max_body_bytes:
                response.close()
                raise FoothillError("upstream_failed", f"{base_url} answered more than {self._max_body_bytes} bytes.")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _target(self, base_url: str, path: str) -> tuple[URL, str | None]:
        """The URL to connect to, and the Host header when that is not the URL's own."""
        asked = URL(base_url.rstrip("/") + path, encoded=True)
        other = self._connect_to.get(_origin(asked))
        if other is None:
            return asked, None
        moved = asked.with_scheme(other.scheme).with_host(other.host or "").with_port(other.port)
        return moved, asked.authority

    def _timeout(self, left_s: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=left_s, sock_connect=self._connect_timeout_s, ceil_threshold=float("inf"))


def _session(ssl: SSLContext | None, tracing: aiohttp.TraceConfig, *, fresh: bool) -> aiohttp.ClientSession:
    """Headers and bodies pass as they are: no cookies, no own headers, no decompression, no proxies."""
    connector = aiohttp.TCPConnector(
        ssl=ssl if ssl is not None else True,
        limit=_CONNECTIONS,
        limit_per_host=_CONNECTIONS_PER_ORIGIN,
        force_close=fresh,
        keepalive_timeout=None if fresh else _IDLE_S,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        auto_decompress=False,
        trace_configs=[tracing],
    )


async def _note_reuse(
    session: aiohttp.ClientSession, context: SimpleNamespace, _: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True


async def _note_sent(
    session: aiohttp.ClientSession, context: SimpleNamespace, _: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.sent = True


def _data(body: bytes) -> bytes | io.BytesIO | None:
    """aiohttp writes raw bytes in one piece and warns above 1 MiB: it feeds a reader to the socket in chunks."""
    return io.BytesIO(body) if len(body) > _PLAIN_BODY_BYTES else body or None


def _stale(error: aiohttp.ClientError, seen: SimpleNamespace) -> bool:
    """Whether a pooled connection ended before its answer began; aiohttp hands over the head of one that broke off."""
    begun = isinstance(error, aiohttp.ServerDisconnectedError) and isinstance(error.message, tuple)
    return bool(seen.reused) and not seen.received and not begun


def _unreachable(base_url: str, error: aiohttp.ClientError, seen: SimpleNamespace) -> UpstreamUnreachable:
    never = isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL)
    reason = f"{type(error).__name__} {error}".strip()
    return UpstreamUnreachable(base_url, sent=seen.sent and not never, reason=reason)


def _milliseconds(left: float) -> str:
    return f"{min(headers.MAX_DEADLINE_MS, max(1.0, left)):.0f}"


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port
