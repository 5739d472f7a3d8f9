"""One connection's requests for hot routes: read, answered and written here. All others pass through untouched."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Literal

from multidict import CIMultiDictProxy

from contracts.deadlines import Deadline
from contracts.errors import FoothillError
from runtime.links.bodies import too_large, too_slow
from runtime.links.exchanges import Clock, Outgoing
from runtime.links.hot_routes import Hot, HotRoutes
from runtime.links.http_date import HttpDate
from runtime.links.http_errors import callers_id
from runtime.links.http_framing import Framing, Head

log = logging.getLogger(__name__)

LINGER_S = 10.0
"""For so long the rest of a body is read that nobody wants any more: a caller that still writes would not see why."""
_HELD_BYTES = 1 << 18
_SMALL_BYTES = 1 << 16
_FIRST_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}


class HotRequest:
    """One request, whose body may still be on its way: `runtime.links.exchanges.Incoming`."""

    __slots__ = ("_arrived", "_head", "_parts", "left", "params", "request_id")

    def __init__(self, head: Head, params: Mapping[str, str]) -> None:
        self._head = head
        self._parts: list[bytes] = []
        self._arrived: asyncio.Future[None] | None = None
        self.left = head.content_length
        self.params = params
        self.request_id = callers_id(head.headers) or os.urandom(16).hex()

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def target(self) -> str:
        return self._head.target

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._head.headers

    async def read(self, limit: int, deadline: Deadline, clock: Clock) -> bytes:
        if self._head.content_length > limit:
            raise too_large(limit)
        if self.left:
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait_for(self._arrived, deadline.left_s(clock()))
            except asyncio.TimeoutError:
                raise too_slow() from None
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, part: bytes, *, wanted: bool) -> None:
        """The next bytes of the body."""
        self.left -= len(part)
        if wanted:
            self._parts.append(part)
        if not self.left and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class HotConnection:
    """`theirs` gets the bytes of requests for other routes, and calls `their_answer_ended` behind each of its answers.

    One request is worked on at a time, in the order in which they came; what a caller sends beyond it waits, here up to
    a bound and then in the kernel. `busy` is told when an answer of ours begins and ends.
    """

    def __init__(
        self,
        routes: HotRoutes,
        transport: asyncio.Transport,
        date: HttpDate,
        *,
        theirs: Callable[[bytes], None],
        busy: Callable[[bool], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._routes = routes
        self._transport = transport
        self._date = date
        self._theirs = theirs
        self._busy = busy
        self._loop = loop
        self._framing = Framing()
        self._owner: Literal["", "ours", "theirs", "theirs for good"] = ""
        self._left = 0
        self._answered = True
        self._blocked = self._paused = False
        self._request: HotRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._matched: tuple[Head | None, Hot | None] = (None, None)

    def received(self, data: bytes) -> None:
        if self._owner == "theirs for good":
            self._theirs(data)
            return
        self._framing.add(data)
        self._advance()

    def their_answer_ended(self) -> None:
        if self._owner == "theirs":
            self._answered = True
            self._advance()

    def may_write(self, may: bool) -> None:
        """Whether the caller takes what is written; until it does, nothing more is answered."""
        self._blocked = not may
        if may and self._owner:
            self._advance()

    def lost(self) -> None:
        """The caller is gone: whatever is done for it is given up."""
        if self._task is not None:
            self._task.cancel()

    def _advance(self) -> None:
        """As far as the bytes at hand go."""
        while not self._transport.is_closing():
            if not self._owner and not self._begin():
                return
            if self._left and not self._pass_body():
                return
            if self._left or not self._answered or self._blocked:
                self._hold()
                return
            self._owner, self._request = "", None
            self._release()

    def _begin(self) -> bool:
        """The next request goes to whom it belongs. Whether there was one."""
        head = self._framing.head()
        if head is None:
            return False
        if isinstance(head, bytes):
            self._owner = "theirs for good"
            self._release()
            self._theirs(head)
            return False
        self._left, self._answered = head.content_length, False
        hot = self._match(head)
        if hot is None:
            self._owner = "theirs"
            self._theirs(head.raw)
        else:
            self._owner = "ours"
            self._request = HotRequest(head, hot.params)
            self._busy(True)
            self._task = self._loop.create_task(self._answer(hot, self._request))
        return True

    def _match(self, head: Head) -> Hot | None:
        known, hot = self._matched
        if known is not head:
            hot = self._routes.match(head)
            self._matched = (head, hot)
        return hot

    def _pass_body(self) -> bool:
        """Whether there was some of it."""
        part = self._framing.take(self._left)
        self._left -= len(part)
        if part and self._request is not None:
            self._request.take(part, wanted=not self._answered)
        elif part:
            self._theirs(part)
        return bool(part)

    async def _answer(self, hot: Hot, request: HotRequest) -> None:
        try:
            answer = await hot.story(request)
            self._write(answer)
        except Exception:
            log.exception("%s %s failed", request.method, request.target)
            self._transport.close()
        finally:
            self._busy(False)
        self._task, self._answered = None, True
        if self._left:
            self._loop.call_later(LINGER_S, self._give_up, request)
        self._advance()

    def _write(self, answer: Outgoing) -> None:
        if self._transport.is_closing():
            return
        head = rendered(answer, self._date.now())
        if len(answer.body) <= _SMALL_BYTES:
            self._transport.write(head + answer.body)
        else:
            self._transport.write(head)
            self._transport.write(answer.body)

    def _give_up(self, request: HotRequest) -> None:
        """Whoever still sends the body of a request that was answered long ago."""
        if self._request is request and self._left:
            self._transport.close()

    def _hold(self) -> None:
        if self._framing.held > _HELD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _release(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()


def rendered(answer: Outgoing, date: str) -> bytes:
    """The head of an answer. Raises FoothillError `internal` for a header that would begin another one."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in answer.headers.items()])
    if lines.count("\n") != len(answer.headers) or lines.count("\r") != len(answer.headers):
        raise FoothillError("internal", f"A header of an answer has a line break in it: {sorted(answer.headers)}.")
    first = _FIRST_LINES[answer.status]
    return f"{first}{lines}Date: {date}\r\nContent-Length: {len(answer.body)}\r\n\r\n".encode(
        "utf-8", "surrogateescape"
    )
