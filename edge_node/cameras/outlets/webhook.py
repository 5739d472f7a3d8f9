"""What is said of cameras, to a server of the operator's: in its order, by POST, until that server has taken it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp

from contracts.errors import FoothillError
from edge_node.cameras.feed import Feed, Said, type_of
from edge_node.cameras.outlets.backlog import Backlog
from edge_node.cameras.outlets.webhook_config import Secrets, WebhookConfig
from runtime.links.bundles.blob_http import aiohttp_tls
from runtime.links.process.within import within
from runtime.links.trust.tls import SYSTEM, TlsConfig, told

log = logging.getLogger(__name__)

SIGNATURE = "Foothill-Signature"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
MOST_PATIENCE_S = 3600.0
"""A server that asks for more is asked again after that."""
_ANSWER_BYTES, _REST_S = 4096, 1.0
TIMEOUT_S = 30.0
_CONNECT_S = 10.0
_LAST_WORDS_S = 2.0
_TRY_AGAIN = frozenset((408, 425, 429))


class _Refused(Exception):  # noqa: N818 - it names a state of the world, not a mistake
    """The server does not want this batch, however often it is sent."""


class _Away(Exception):  # noqa: N818 - as above
    """It was not taken this time. `after_s`: the server asks for so much patience."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


class _Answer(NamedTuple):
    status: int
    retry_after: str


class Webhook:
    """One POST at a time: what it holds is sent until it is taken, so that nothing comes out of turn. What was not
    taken when the node ends is told by its next life.

    Between attempts there is a pause that doubles, drawn anew each time (the full jitter of M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015), and as long as the server asks for.
    """

    def __init__(
        self,
        config: WebhookConfig,
        feed: Feed,
        backlog: Backlog,
        *,
        tls: TlsConfig = SYSTEM,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
        longest_pause_s: float = LONGEST_PAUSE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._config = config
        self._backlog = backlog
        self._tls = tls
        self._rng = rng or random.Random()
        self._wall = wall
        self._longest_pause_s = longest_pause_s
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        feed.listeners.append(self._hear)

    @property
    def dropped(self) -> int:
        return self._backlog.dropped

    async def start(self) -> None:
        await self._backlog.open()
        self._task = asyncio.create_task(self._keep_telling())

    async def stop(self) -> None:
        """What waits still has two seconds."""
        if self._task is None:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._backlog.emptied(), _LAST_WORDS_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._close()
        left, lost = len(self._backlog), await self._backlog.close()
        if left:
            words = "webhook %s: %d messages were not taken before the end: %d wait for the next start, %d are lost"
            log.warning(words, self._config.origin, left, left - lost, lost)

    def _hear(self, said: Said) -> None:
        config = self._config
        if (not config.cameras or said.camera in config.cameras) and (
            not config.types or type_of(said) in config.types
        ):
            self._backlog.put(said.body)

    async def _keep_telling(self) -> None:
        while True:
            batch = await self._backlog.take()
            self._backlog.over(taken=await self._deliver(b"[" + b",".join(batch) + b"]"))

    async def _deliver(self, body: bytes) -> bool:
        """False: it is refused for good."""
        attempts = 0
        while isinstance(answer := await self._attempt(body), _Away):
            await self._close()
            self._complain(f"{answer}; trying again")
            await asyncio.sleep(self._pause_s(attempts, answer.after_s))
            attempts += 1
        return answer

    async def _attempt(self, body: bytes) -> _Away | bool:
        """Whether it was taken, or refused."""
        try:
            await self._post(body)
        except _Away as away:
            return away
        except _Refused as refused:
            self._complain(f"{refused}; what it refuses is dropped")
            return False
        self._complain("")
        return True

    def _pause_s(self, attempts: int, after_s: float) -> float:
        most_s = min(self._longest_pause_s, FIRST_PAUSE_S * 2.0 ** min(attempts, 20))
        return max(self._rng.uniform(0.0, most_s), min(after_s, MOST_PATIENCE_S))

    async def _post(self, body: bytes) -> None:
        """Raises _Away and _Refused."""
        try:
            secrets = await asyncio.to_thread(self._config.secrets)
            answer = await self._ask(body, headers_of(body, secrets, self._wall()))
        except aiohttp.ClientResponseError as error:  # whose text shows the path
            raise _Away("what answers does not speak HTTP") from error
        except asyncio.TimeoutError as error:
            raise _Away(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError, FoothillError) as error:
            raise _Away(told(error)) from error
        if 200 <= answer.status < 300:
            return
        why = f"it answers with status {answer.status}"
        if 400 <= answer.status < 500 and answer.status not in _TRY_AGAIN:
            raise _Refused(why)
        raise _Away(why, patience_s(answer.retry_after, self._wall()))

    async def _ask(self, body: bytes, headers: dict[str, str]) -> _Answer:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=await aiohttp_tls(self._config.url, self._tls))
            timeout = aiohttp.ClientTimeout(total=self._timeout_s, connect=_CONNECT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=connector)
        async with self._session.post(self._config.url, data=body, headers=headers, allow_redirects=False) as answer:
            # What follows the status says nothing: read, so that the connection can be used again, where it comes soon.
            with contextlib.suppress(asyncio.TimeoutError, aiohttp.ClientError):
                await within(answer.content.read(_ANSWER_BYTES), _REST_S)
            return _Answer(answer.status, answer.headers.get("Retry-After", ""))

    async def _close(self) -> None:
        """The next connection is a new one, with the certificates of then."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _complain(self, trouble: str) -> None:
        """Once when it begins, when it becomes another one, and when it is over."""
        if trouble == self._trouble:
            return
        if trouble:
            log.warning("webhook %s: %s", self._config.origin, trouble)
        else:
            log.info("webhook %s: taken again; %d messages were lost so far", self._config.origin, self.dropped)
        self._trouble = trouble


def headers_of(body: bytes, secrets: Secrets, now_s: float) -> dict[str, str]:
    """Signed, where there is a key, as Stripe does it (https://docs.stripe.com/webhooks#verify-manually): the hex
    HMAC-SHA256 of the time in seconds, a dot and the body."""
    headers = {"Content-Type": "application/json"}
    if secrets.token:
        headers["Authorization"] = f"Bearer {secrets.token}"
    if secrets.key:
        stamp = str(int(now_s))
        signed = hmac.new(secrets.key.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        headers[SIGNATURE] = f"t={stamp},v1={signed}"
    return headers


def patience_s(retry_after: str, now_s: float) -> float:
    """What a `Retry-After` asks for: seconds, or a date (RFC 9110, 10.2.3). 0 for what is neither."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return 0.0
