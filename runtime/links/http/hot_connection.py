"""One connection's requests for hot routes: read, answered and written here. All others pass through untouched."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, NamedTuple, cast

from contracts.errors import FoothillError
from contracts.headers import REQUEST_ID
from runtime.links.http.bulk import Buffer, Bulk
from runtime.links.http.coming_body import ComingBody
from runtime.links.http.date import HttpDate
from runtime.links.http.errors import callers_id
from runtime.links.http.exchanges import Body, Outgoing, Varied
from runtime.links.http.framing import Framing
from runtime.links.http.heads import Alike, Head
from runtime.links.http.hot_request import Deliver, HotRequest
from runtime.links.http.hot_routes import Coming, GiveUp, Hot, HotRoutes, Shortcut, Turn
from runtime.links.http.patience import Patience, Waiting
from runtime.links.http.rendering import rendered
from runtime.links.http.request_ids import RequestIds
from runtime.links.http.spool import SPOOLED_BYTES, Spool
from runtime.links.http.theirs import Theirs

log = logging.getLogger(__name__)

FIRST_PROBE_S, LAST_PROBE_S = 0.01, 1.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HELD_BYTES = 1 << 18
_PLACED_BYTES, _AT_LEAST = 1 << 15, 0.25
"""Bodies of so many bytes on are read into their place with their heads, if such a share of them comes at once: who
declares much and sends little is given no room for it."""
_AT_ONCE = 16
_SMALL_BYTES: Final = 1 << 16
Start = Callable[[Body, Turn], GiveUp | None]


class _Last(NamedTuple):
    """What is known of requests whose heads are alike the last one that was ours."""

    alike: Alike
    hot: Hot
    sent_id: str
    shortcut: Shortcut | None
    whole_bytes: int
    placed: bool
    """Whether the next one is read into a place of its own, head and all."""


class Shared:
    """What the connections of one server share. Bytes are read into `buffer`."""

    def __init__(self) -> None:
        self.date = HttpDate()
        self.ids = RequestIds()
        self.buffer = Buffer()
        self.patience = Patience()


class HotConnection(asyncio.BufferedProtocol):
    """`theirs` gets the bytes of requests for other routes. Once it `ends`, nothing more is answered. It was `used_s`
    last, by the monotonic clock.

    One request is worked on at a time, in the order in which they came; what a caller sends beyond it waits, here up to
    a bound and then in the kernel. The bytes of a large body are read straight into their place: an asyncio.Protocol
    would get each piece as an object of its own, to be copied once more.
    """

    def __init__(self, routes: HotRoutes, shared: Shared, theirs: Theirs, loop: asyncio.AbstractEventLoop) -> None:
        self._routes = routes
        self._shared = shared
        self._theirs = theirs
        self._loop = loop
        self._transport: asyncio.Transport = _UNMADE
        self._buffer, self._bytes = shared.buffer.view, shared.buffer.bytes
        self.ends = False
        self.used_s = time.monotonic()
        self._remote = ""
        self._waiting = Waiting(shared.patience, _UNMADE)
        self._framing = Framing()
        self._body = ComingBody(self._framing, self._buffer, self._hold_back)
        self._owner: Literal["", "ours", "theirs", "theirs for good"] = ""
        self._answered = True
        self._blocked = self._paused = self._ended = self._pouring = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._place: bytearray | None = None
        self._give_up: GiveUp | None = None
        self._advancing = False
        self._last: _Last | None = None

    @property
    def answering(self) -> bool:
        """Whether a request of ours is under way."""
        return self._owner == "ours" and not self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._remote = _address(self._transport)
        self._theirs.connection_made(transport)
        self._waiting = Waiting(self._shared.patience, self._transport)
        self._waiting.head()

    def get_buffer(self, sizehint: int) -> memoryview:
        bulk = self._body.bulk
        if bulk is not None:
            return bulk.room()
        last = self._last
        if last is None or not last.placed or self._owner or self._framing.held:
            self._place = None
            return self._buffer
        self._place = bytearray(last.whole_bytes)
        return memoryview(self._place)

    def buffer_updated(self, nbytes: int) -> None:
        last = self._last
        if self._body.bulk is not None:
            self._fill(nbytes)
        elif self._place is not None:
            self._take_place(self._place, nbytes)
        elif self.ends and not self.answering:
            pass  # who is answered while the server stops has still to send the rest of its body; nobody else
        elif (
            last is None
            or nbytes != last.whole_bytes
            or self._owner
            or self._framing.held
            or self._advancing
            or not self._again(last)
        ):
            self._receive(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """The caller sends no more: it waits for what it has asked, or it is gone. Whether it may still be there."""
        self._theirs.eof_received()
        self._ended = True
        theirs = self._theirs
        more = self.answering or theirs.awaited or (self._framing.held and not theirs.answering)
        waits = bool(self._owner and more) and not self._body.left
        if not waits or self._transport.get_extra_info("sslcontext") is not None:
            return False  # of TLS no half stays open
        self._probe(FIRST_PROBE_S)
        return True

    def _probe(self, again_s: float) -> None:
        """To a caller that is gone the second one of these cannot be sent: its kernel has refused the first. One that
        waits passes over them (RFC 9110, section 15.2)."""
        if self._transport.is_closing():
            return
        if self._owner != "ours":
            self._theirs.probe()
        elif self.answering and not self._pouring:
            self._transport.write(CONTINUE)
        self._loop.call_later(again_s, self._probe, min(2 * again_s, LAST_PROBE_S))

    def _fill(self, count: int) -> None:
        self._body.fill(count)
        if not self._body.left:
            self._waiting.rest_came()
            self._advance()

    def _take_place(self, place: bytearray, count: int) -> None:
        """Of a large body that begins behind a head like the last one nothing is copied."""
        last, self._place = self._last, None
        if last is None or self.ends:
            return
        enough = count >= max(last.alike.size, _AT_LEAST * last.whole_bytes)
        varied = last.alike.varied(place) if enough and not self._advancing else None
        if varied is None:
            self._receive(bytes(memoryview(place)[:count]))
            return
        if self._waiting.headless:
            self._waiting.head_came()
        bulk = Bulk.behind_head(place, last.alike.size, count, self._buffer)
        if not bulk.left:
            self._start(last, varied, bulk.body)
            return
        self._body.begin(bulk)
        self._start(last, varied, None)
        self._advance()

    def _again(self, last: _Last) -> bool:
        """Whether one whole request has come, whose head is alike the last one's: most are."""
        varied = last.alike.varied(self._bytes)
        if varied is None:
            return False
        if self._waiting.headless:
            self._waiting.head_came()
        self._start(last, varied, bytes(self._buffer[last.alike.size : last.whole_bytes]))
        return True

    def _receive(self, data: bytes) -> None:
        if self._owner == "theirs for good":
            self._theirs.data_received(data)
        else:
            self._framing.add(data)
            self._advance()

    def their_answer_ended(self) -> None:
        if self._owner == "theirs":
            self._answered = True
            self._advance()
        elif self._ended and not self._theirs.answering:
            self._transport.close()

    def pause_writing(self) -> None:
        """The caller does not take what is written; until it does, nothing more is answered, and not for ever."""
        self._theirs.pause_writing()
        self._blocked = True
        self._writable.clear()
        self._waiting.reader()

    def resume_writing(self) -> None:
        self._theirs.resume_writing()
        self._blocked = False
        self._writable.set()
        self._waiting.reader_reads()
        if self._owner:
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: whatever is done for it is given up."""
        self._waiting.end()
        self._body.end()
        if self._give_up is not None:
            self._give_up()
            self._theirs.note_free()
        self._theirs.connection_lost(exc)

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
        if self._body.left and not self._pass_body():
            self._hold()
            return False
        if self._body.left or not self._answered or self._blocked:
            self._hold()
            return False
        self._owner = ""
        self._release()
        return True

    def _begin(self) -> bool:
        """The next request goes to whom it belongs. Whether there was one."""
        head = self._framing.head()
        if head is None:
            if self._ended:
                self._transport.close()
            elif self._framing.held:
                self._waiting.head()
            return False
        if self._waiting.headless:
            self._waiting.head_came()
        if isinstance(head, bytes):
            self._owner = "theirs for good"
            self._release()
            self._theirs.data_received(head)
            return False
        alike, varied = head
        self._body.left, self._answered = alike.content_length, False
        last = self._last
        if last is None or last.alike is not alike:
            last = self._last = self._met(head)
        if last is None:
            self._owner = "theirs"
            self._theirs.data_received(alike.raw(varied))
            return True
        body = None
        if alike.content_length <= self._framing.held:
            body, self._body.left = self._framing.take(alike.content_length), 0
        self._start(last, varied, body)
        return True

    def _met(self, head: Head) -> _Last | None:
        """What there is to know of requests with such heads; None where they are not for a hot route."""
        alike, varied = head
        hot = self._routes.match(alike)
        if hot is None:
            return None
        sent_id = callers_id(alike.headers(varied))
        shortcut = hot.route.prepare(HotRequest(head, hot.params, sent_id, remote=self._remote))
        placed = hot.route.relays and _PLACED_BYTES <= alike.content_length <= SPOOLED_BYTES
        return _Last(alike, hot, sent_id, shortcut, alike.size + alike.content_length, placed)

    def _start(self, last: _Last, varied: Varied, body: Body | None) -> None:
        """The shortcut where there is one that takes it, else the story."""
        self._owner, self._answered = "ours", False
        self.used_s = time.monotonic()
        sent_id = callers_id(varied) if REQUEST_ID in varied else last.sent_id
        turn, shortcut = Turn(sent_id or self._shared.ids.new(), varied, self._done), last.shortcut
        if body is None:
            self._expect(last, turn)
        elif shortcut is None or not self._at_once(last, shortcut.start, body, turn):
            self._begin_story(last, turn, body)

    def _expect(self, last: _Last, turn: Turn) -> None:
        """Some of the body has still to come."""
        coming = None
        if last.shortcut is not None:
            try:
                coming = last.shortcut.expect(self._body.peek, last.alike.content_length, turn)
            except Exception:  # noqa: BLE001 - as for `_at_once`
                self._fail(last.alike)
                return
        if coming is not None:
            self._give_up = coming.give_up
            self._body.want(partial(self._came, last, turn, coming), to_disk=False)
        elif not self._answered:
            self._begin_story(last, turn)

    def _came(self, last: _Last, turn: Turn, coming: Coming, body: Body) -> None:
        self._give_up = None
        if not self._at_once(last, coming.start, body, turn):
            self._begin_story(last, turn, body, waited_s=coming.waited_s)

    def _at_once(self, last: _Last, start: Start, body: Body, turn: Turn) -> bool:
        """Whether it is not left to the story."""
        try:
            give_up = start(body, turn)
        except Exception:  # noqa: BLE001 - who has handed over the answer before this request must not hear of it
            self._fail(last.alike)
            return True
        if give_up is not None and not self._answered:
            self._give_up = give_up
        return self._answered or give_up is not None

    def _begin_story(self, last: _Last, turn: Turn, body: Body | None = None, *, waited_s: float = 0.0) -> None:
        head = Head(last.alike, turn.varied)
        request = HotRequest(head, last.hot.params, turn.request_id, remote=self._remote, waited_s=waited_s)
        request.grant = turn.grant
        if body is not None:
            request.came(body)
        else:
            request.comes(self._body.peek, self._want)
        task = self._loop.create_task(self._tell(last.hot, request))
        self._give_up = partial(_cancel, task)

    def _want(self, deliver: Deliver, to_disk: bool) -> None:
        self._body.want(deliver, to_disk=to_disk)
        self._advance()

    def _pass_body(self) -> bool:
        """Whether what is here of it could go on. What nobody has asked for yet waits, up to the bound."""
        body = self._body
        if self._owner == "ours":
            if body.bulk is None and (self._answered or body.wanted):
                body.fetch()
                self._release()
                if not body.left:
                    self._waiting.rest_came()
            return not body.left
        part = self._framing.take(body.left)
        body.left -= len(part)
        self._release()
        if part:
            self._theirs.data_received(part)
        return bool(part)

    def _hold_back(self, hold: bool) -> None:
        """The caller, while the disk is behind."""
        if not self._transport.is_closing():
            self._transport.pause_reading() if hold else self._transport.resume_reading()

    async def _tell(self, hot: Hot, request: HotRequest) -> None:
        try:
            self._done(await hot.route.story(request))
        except Exception:  # noqa: BLE001 - nobody else waits for it
            self._fail(request)

    def _fail(self, request: Alike | HotRequest) -> None:
        """A defect ends its connection."""
        log.exception("%s %s failed", request.method, request.target)
        self._transport.close()
        self._theirs.note_free()

    def _done(self, answer: Outgoing) -> None:
        try:
            self._write(answer)
        except Exception:
            log.exception("an answer of %d cannot be written", answer.status)
            self._transport.close()
        if answer.spool is None or self._transport.is_closing():
            self._written()
        else:
            self._give_up = partial(_cancel, self._loop.create_task(self._pour(answer.spool)))

    async def _pour(self, body: Spool) -> None:
        """As fast as the caller takes it."""
        self._pouring = True
        try:
            async for piece in body.pieces():
                self._transport.write(piece)
                await self._writable.wait()
        except (OSError, FoothillError):
            log.exception("an answer of %d bytes breaks off", len(body))
            self._transport.abort()
        self._pouring = False
        self._written()

    def _written(self) -> None:
        """The whole answer is, and this request is over."""
        self._give_up, self._answered = None, True
        if self.ends:
            self._theirs.note_free()
        if self._body.left:
            self._body.forget()
            self._waiting.rest()
        if self._body.left or self._blocked or self._advancing or self._framing.held:
            self._advance()
        else:
            self._owner = ""
            self._release()
            if self._ended:
                self._transport.close()

    def _write(self, answer: Outgoing) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        head = rendered(answer, self._shared.date.now())
        if len(answer.body) <= _SMALL_BYTES:
            transport.write(head + answer.body)
        else:
            transport.writelines((head, answer.body))

    def _hold(self) -> None:
        if self._framing.held > _HELD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _release(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()


class _Unmade(asyncio.Transport):
    """Until there is one."""


_UNMADE = _Unmade()


def _address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
