"""One connection's requests for hot routes: read, answered and written here. All others pass through untouched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Literal, NamedTuple

from multidict import CIMultiDictProxy

from contracts.deadlines import Deadline
from runtime.links.access.grants import Grant
from runtime.links.http.bodies import too_large, too_slow
from runtime.links.http.date import HttpDate
from runtime.links.http.errors import callers_id
from runtime.links.http.exchanges import Clock, Outgoing, header_lines
from runtime.links.http.framing import Framing, Head
from runtime.links.http.hot_routes import Hot, HotRoutes, Start
from runtime.links.http.request_ids import RequestIds

log = logging.getLogger(__name__)

LINGER_S = 10.0
"""For so long the rest of a body is read that nobody wants any more: a caller that still writes would not see why."""
_HELD_BYTES = 1 << 18
_AT_ONCE = 16
_SMALL_BYTES = 1 << 16
_FIRST_LINES = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n" for status in HTTPStatus}


class HotRequest:
    """One request, whose body may still be on its way: `runtime.links.http.exchanges.Incoming`."""

    __slots__ = ("_arrived", "_head", "_parts", "_peek", "_wanted", "grant", "left", "params", "request_id")

    def __init__(self, head: Head, params: Mapping[str, str], request_id: str) -> None:
        self._head = head
        self._parts: list[bytes] = []
        self._arrived: asyncio.Future[None] | None = None
        self._peek: Callable[[int], bytes] | None = None
        self._wanted: Callable[[], None] | None = None
        self.left = head.content_length
        self.params = params
        self.request_id = request_id
        self.grant: Grant | None = None

    def again(self, request_id: str) -> HotRequest:
        return HotRequest(self._head, self.params, request_id)

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def target(self) -> str:
        return self._head.target

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._head.headers

    def expect(self, count: int) -> tuple[bytes, int]:
        return (self._peek(count), self.left) if self._peek is not None else (b"", 0)

    async def read(self, limit: int, deadline: Deadline, clock: Clock) -> bytes:
        if self._head.content_length > limit:
            raise too_large(limit)
        if self.left:
            self._arrived = asyncio.get_running_loop().create_future()
            if self._wanted is not None:
                self._wanted()
            try:
                await asyncio.wait_for(self._arrived, deadline.left_s(clock()))
            except asyncio.TimeoutError:
                raise too_slow() from None
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def reads(self) -> bool:
        """Whether anybody has asked for the body: before that it is not known how much of it may be kept."""
        return self._arrived is not None

    def comes(self, peek: Callable[[int], bytes], wanted: Callable[[], None]) -> None:
        """Some of the body has still to come. `peek` shows what is here; `wanted` is called when it is asked for."""
        self._peek, self._wanted = peek, wanted

    def take(self, part: bytes, *, wanted: bool) -> None:
        """The next bytes of the body."""
        self.left -= len(part)
        if wanted:
            self._parts.append(part)
        if not self.left and self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class _Last(NamedTuple):
    """What is known of requests with the head of the last one that was ours."""

    head: Head
    hot: Hot
    sent_id: str
    start: Start | None
    whole_bytes: int


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
        ids: RequestIds,
        *,
        theirs: Callable[[bytes], None],
        busy: Callable[[bool], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._routes = routes
        self._transport = transport
        self._date = date
        self._ids = ids
        self._theirs = theirs
        self._busy = busy
        self._loop = loop
        self._framing = Framing()
        self._owner: Literal["", "ours", "theirs", "theirs for good"] = ""
        self._left = 0
        self._answered = True
        self._blocked = self._paused = False
        self._request: HotRequest | None = None
        self._give_up: Callable[[], None] | None = None
        self._advancing = False
        self._last: _Last | None = None

    @property
    def answering(self) -> bool:
        """Whether a request of ours is under way."""
        return self._owner == "ours" and not self._answered

    def received(self, data: bytes) -> None:
        last, free = self._last, not (self._owner or self._advancing or self._framing.held)
        if free and last is not None and len(data) == last.whole_bytes and data.startswith(last.head.raw):
            # One whole request, whose head is in the very bytes of the last one's: most are.
            self._start(last, data[len(last.head.raw) :])
            return
        if self._owner == "theirs for good":
            self._theirs(data)
        else:
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
        if self._give_up is not None:
            self._give_up()
            self._busy(False)

    def _advance(self) -> None:
        """As far as the bytes at hand go, but for the turns of other connections in between."""
        if self._advancing:
            return
        self._advancing, left = True, _AT_ONCE
        try:
            while left and self._step():
                left -= 1
        finally:
            self._advancing = not left
        if not left:
            self._hold()
            self._loop.call_soon(self._advance_again)

    def _advance_again(self) -> None:
        self._advancing = False
        self._advance()

    def _step(self) -> bool:
        """Whether there is more to do with the bytes at hand."""
        if self._transport.is_closing() or not (self._owner or self._begin()):
            return False
        if self._left and not self._pass_body():
            self._hold()
            return False
        if self._left or not self._answered or self._blocked:
            self._hold()
            return False
        self._owner, self._request = "", None
        self._release()
        return True

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
        last = self._last
        if last is None or last.head is not head:
            last = self._last = self._met(head)
        if last is None:
            self._owner = "theirs"
            self._theirs(head.raw)
            return True
        body = self._framing.take(self._left) if self._left <= self._framing.held else None
        self._start(last, body)
        return True

    def _met(self, head: Head) -> _Last | None:
        """What there is to know of requests with this head; None where they are not for a hot route."""
        hot = self._routes.match(head)
        if hot is None:
            return None
        sent_id = callers_id(head.headers)
        start = hot.route.prepare(HotRequest(head, hot.params, sent_id))
        return _Last(head, hot, sent_id, start, len(head.raw) + head.content_length)

    def _start(self, last: _Last, body: bytes | None) -> None:
        """The swift way where the body is here already, else the story that waits for it."""
        self._owner, self._answered, self._left = "ours", False, 0 if body is not None else last.head.content_length
        self._busy(True)
        request_id = last.sent_id or self._ids.new()
        if body is not None and last.start is not None and self._at_once(last.start, last.head, body, request_id):
            return
        request = self._request = HotRequest(last.head, last.hot.params, request_id)
        if body is not None:
            request.take(body, wanted=True)
        else:
            request.comes(self._framing.peek, self._advance)
        task = self._loop.create_task(self._tell(last.hot, request))
        self._give_up = partial(_cancel, task)

    def _at_once(self, start: Start, head: Head, body: bytes, request_id: str) -> bool:
        """Whether it is not left to the story."""
        try:
            give_up = start(body, request_id, self._done)
        except Exception:  # noqa: BLE001 - who has handed over the answer before this request must not hear of it
            self._fail(head)
            return True
        if give_up is not None and not self._answered:
            self._give_up = give_up
        return self._answered or give_up is not None

    def _pass_body(self) -> bool:
        """Whether there was some of it that could go on. What nobody has asked for yet waits, up to the bound."""
        request = self._request
        if request is not None and not (self._answered or request.reads):
            return False
        part = self._framing.take(self._left)
        self._left -= len(part)
        self._release()
        if part and request is not None:
            request.take(part, wanted=not self._answered)
        elif part:
            self._theirs(part)
        return bool(part)

    async def _tell(self, hot: Hot, request: HotRequest) -> None:
        try:
            self._done(await hot.route.story(request))
        except Exception:  # noqa: BLE001 - nobody else waits for it
            self._fail(request)

    def _fail(self, request: Head | HotRequest) -> None:
        """A defect ends its connection."""
        log.exception("%s %s failed", request.method, request.target)
        self._transport.close()
        self._busy(False)

    def _done(self, answer: Outgoing) -> None:
        self._give_up, self._answered = None, True
        try:
            self._write(answer)
        except Exception:
            log.exception("an answer of %d cannot be written", answer.status)
            self._transport.close()
        finally:
            self._busy(False)
        if self._left and self._request is not None:
            self._loop.call_later(LINGER_S, self._close_if_left, self._request)
        if self._left or self._blocked or self._advancing or self._framing.held:
            self._advance()
        else:
            self._owner, self._request = "", None
            self._release()

    def _write(self, answer: Outgoing) -> None:
        if self._transport.is_closing():
            return
        head = rendered(answer, self._date.now())
        if len(answer.body) <= _SMALL_BYTES:
            self._transport.write(head + answer.body)
        else:
            self._transport.write(head)
            self._transport.write(answer.body)

    def _close_if_left(self, request: HotRequest) -> None:
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


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def rendered(answer: Outgoing, date: str) -> bytes:
    """The head of an answer. Raises FoothillError `internal`, as `header_lines`."""
    length = f"Date: {date}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    own = header_lines(answer.headers) if answer.headers else ""
    lines = f"{_FIRST_LINES[answer.status]}{answer.fixed.lines}{answer.lines}{own}{length}"
    return lines.encode("utf-8", "surrogateescape")
