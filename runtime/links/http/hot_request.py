"""A request for a hot route, as its story sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from multidict import CIMultiDictProxy

from contracts.deadlines import Deadline
from runtime.links.access.grants import Grant
from runtime.links.http.bodies import too_large, too_slow
from runtime.links.http.exchanges import Body, Clock, Varied
from runtime.links.http.heads import Head
from runtime.links.http.spool import Spool

Deliver = Callable[[Body | Spool], None]
Want = Callable[[Deliver, bool], None]
"""Asks for a body; whether it goes to disk."""


class HotRequest:
    """One request, whose body may still be on its way: `runtime.links.http.exchanges.Incoming`."""

    __slots__ = (
        "_alike",
        "_body",
        "_headers",
        "_peek",
        "_varied",
        "_want",
        "grant",
        "params",
        "remote",
        "request_id",
        "waited_s",
    )

    def __init__(
        self, head: Head, params: Mapping[str, str], request_id: str, *, remote: str = "", waited_s: float = 0.0
    ) -> None:
        self._alike, self._varied = head
        self._headers: CIMultiDictProxy[str] | None = None
        self._body: Body = b""
        self._peek: Callable[[int], bytes] | None = None
        self._want: Want | None = None
        self.params = params
        self.remote = remote
        self.request_id = request_id
        self.grant: Grant | None = None
        self.waited_s = waited_s

    def again(self, request_id: str, varied: Varied) -> HotRequest:
        return HotRequest(Head(self._alike, varied), self.params, request_id, remote=self.remote)

    @property
    def method(self) -> str:
        return self._alike.method

    @property
    def target(self) -> str:
        return self._alike.target

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        if self._headers is None:
            self._headers = self._alike.headers(self._varied)
        return self._headers

    def comes(self, peek: Callable[[int], bytes], want: Want) -> None:
        """The body has still to come. `peek` shows what is here of it; `want` asks for all."""
        self._peek, self._want = peek, want

    def came(self, body: Body) -> None:
        self._body = body

    def expect(self, count: int) -> tuple[bytes, int]:
        return (self._peek(count), self._alike.content_length) if self._peek is not None else (b"", 0)

    async def read(self, limit: int, deadline: Deadline, clock: Clock) -> Body:
        if self._alike.content_length > limit:
            raise too_large(limit)
        body = await self._take(deadline.left_s(clock()), to_disk=False)
        assert not isinstance(body, Spool)
        return body

    async def store(self, limit: int, above: int, deadline: Deadline, clock: Clock) -> Body | Spool:
        if self._alike.content_length > limit:
            raise too_large(limit)
        body = await self._take(deadline.left_s(clock()), to_disk=self._alike.content_length > above)
        if isinstance(body, Spool):
            await body.stored()
        return body

    async def _take(self, left_s: float, *, to_disk: bool) -> Body | Spool:
        want, self._want, self._peek = self._want, None, None
        if want is not None:
            return await self._wait(want, left_s, to_disk=to_disk)
        body, self._body = self._body, b""
        return body

    async def _wait(self, want: Want, left_s: float, *, to_disk: bool) -> Body | Spool:
        loop = asyncio.get_running_loop()
        here: asyncio.Future[Body | Spool] = loop.create_future()
        alarm = loop.call_later(max(0.0, left_s), _end, here)
        want(lambda body: None if here.done() else here.set_result(body), to_disk)
        try:
            return await here
        finally:
            alarm.cancel()


def _end(waiting: asyncio.Future[Body | Spool]) -> None:
    if not waiting.done():
        waiting.set_exception(too_slow())
