"""The conversation with a camera (RTSP, RFC 2326): from its address to the pictures it sends."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from urllib.parse import urlsplit

from edge_node.cameras.sources.http_login import DENIED
from edge_node.cameras.sources.rtsp.description import Unfit, Video, video_of
from edge_node.cameras.sources.rtsp.login import Answer, answer_to
from edge_node.cameras.sources.rtsp.media import Came, Media
from edge_node.cameras.sources.rtsp.ways import MEDIA, Datagrams, Interleaved, Way
from edge_node.cameras.sources.rtsp.wire import Piece, Wire
from edge_node.cameras.sources.rtsp.words import VERSION, Said, asked, target
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Wishes

PORT = 554
_LOOK_S = 0.5
"""How long it takes at most until it is seen that nobody wants the pictures any more."""
REPORT_S = 5.0
_USUAL_TIMEOUT_S = 60
_MOST_EARLY = 4096
"""Packets that come before the camera has said that it sends."""
_WORDS = {
    404: "nothing is there: correct the path in the address",
    453: "it has not enough bandwidth for one more stream: close another one",
    454: "it has forgotten the session",
    461: "it does not send by that transport: set transport to the other one",
    503: "it has no room for one more stream: close another one",
}


class Session:
    """Connected. `video` is what is sent, once it is set up. Raises Trouble."""

    video: Video

    def __init__(self, url: str, login: tuple[str, str], wishes: Wishes, corrupt: Callable[[], None]) -> None:
        self._control = url
        self._by_udp = wishes.transport == "udp"
        self._login = login
        self._stall_s = wishes.stall_s
        self._corrupt = corrupt
        self._deadline_s = time.monotonic() + wishes.open_timeout_s
        self._answer: Answer | None = None
        self._sequence = 0
        self._session = ""
        self._way: Way | None = None
        self._early: deque[Piece] = deque(maxlen=_MOST_EARLY)
        host, port = _place(url)
        try:
            self._wire = Wire(host, port, wishes.open_timeout_s)
        except OSError as error:
            raise _lost(error) from None

    def set_up(self) -> None:
        """Raises Trouble; and Unfit for what is to be left to FFmpeg."""
        try:
            self._set_up()
        except OSError as error:
            raise _lost(error) from None

    def pictures(self, stopped: threading.Event) -> Iterator[Came]:
        """Until it is `stopped`. Raises Trouble, also for an end."""
        try:
            yield from self._pictures(stopped)
        except OSError as error:
            raise _lost(error) from None

    def close(self) -> None:
        if self._session:
            with suppress(OSError, Trouble):
                self._say("TEARDOWN", self._control)
        if self._way is not None:
            self._way.close()
        self._wire.close()

    def _set_up(self) -> None:
        url = self._control
        self._methods = self._ask("OPTIONS", url).header("public").upper()
        told = self._ask("DESCRIBE", url, {"Accept": "application/sdp"})
        base = told.header("content-base") or told.header("content-location") or url
        self.video = video_of(told.body.decode("utf-8", "replace"), base if "://" in base else url)
        self._control = base if "://" in base else url
        way: Way = Datagrams(self._wire) if self._by_udp else Interleaved(self._wire)
        self._way = way
        agreed = self._ask("SETUP", self.video.control, {"Transport": way.asked})
        self._session, _, options = agreed.header("session").partition(";")
        way.agree(agreed.header("transport"))
        timeout = options.lower().replace(" ", "").partition("timeout=")[2].partition(";")[0]
        timeout_s = int(timeout[:6]) if timeout.isascii() and timeout.isdecimal() else _USUAL_TIMEOUT_S
        self._alive_every_s = max(1.0, timeout_s / 2)

    def _pictures(self, stopped: threading.Event) -> Iterator[Came]:
        assert self._way is not None
        media = Media(self.video, self._way.patience)
        self._deadline_s = time.monotonic() + self._stall_s
        self._ask("PLAY", self._control, {"Range": "npt=0.000-"})
        self._alive_s = self._reported_s = time.monotonic()
        while not stopped.is_set():
            silent = True
            for came in chain(self._take_early(), self._way.receive(min(_LOOK_S, self._stall_s))):
                if isinstance(came, Said):
                    self._hear(came)
                elif came.channel == MEDIA:
                    silent = False
                    yield from media.packet(came.data)
                else:
                    media.hear(came.data)
            for _ in range(media.new_corrupt()):
                self._corrupt()
            self._keep_up(media, silent)

    def _take_early(self) -> Iterator[Piece]:
        while self._early:
            yield self._early.popleft()

    def _hear(self, said: Said) -> None:
        """Words between the packets. Raises Trouble where it does not play any more."""
        if said.status == 0:  # it asks something: nothing that it may ask is known here
            self._wire.send(f"{VERSION} 501 Not Implemented\r\nCSeq: {max(0, said.sequence)}\r\n\r\n".encode())
        elif said.status == 454:
            self._check(said)
        elif said.status == 401:
            self._answer = answer_to(said.headers.get("www-authenticate", ()), self._login)

    def _keep_up(self, media: Media, silent: bool) -> None:
        assert self._way is not None
        now_s = time.monotonic()
        if not silent:
            self._deadline_s = now_s + self._stall_s
        elif now_s > self._deadline_s:
            raise Trouble("lost", f"nothing came from it for {self._stall_s:g} s")
        if now_s - self._alive_s > self._alive_every_s:
            self._alive_s = now_s
            self._say("GET_PARAMETER" if "GET_PARAMETER" in self._methods else "OPTIONS", self._control)
        if now_s - self._reported_s > REPORT_S:
            self._reported_s = now_s
            if (report := media.report()) is not None:
                self._way.report(report)

    def _say(self, method: str, url: str, more: dict[str, str] | None = None) -> int:
        self._sequence += 1
        url = target(url)
        headers = {"CSeq": str(self._sequence), "User-Agent": "Foothill", **(more or {})}
        if self._session:
            headers["Session"] = self._session
        if self._answer is not None:
            headers["Authorization"] = self._answer(method, url)
        self._wire.send(asked(method, url, headers))
        return self._sequence

    def _ask(self, method: str, url: str, more: dict[str, str] | None = None) -> Said:
        """Once more, where it wants to know who asks."""
        for _ in range(2):
            said = self._answered(self._say(method, url, more))
            if said.status != 401 or not self._login[0]:
                break
            self._answer = answer_to(said.headers.get("www-authenticate", ()), self._login)
        if method != "OPTIONS" or said.status in (401, 403):
            self._check(said)
        return said

    def _answered(self, number: int) -> Said:
        while (left_s := self._deadline_s - time.monotonic()) > 0:
            for came in self._receive(left_s):
                if isinstance(came, Piece):
                    self._early.append(came)
                elif came.status and came.sequence in (number, -1):
                    return came
        raise Trouble("lost", "it takes connections and does not answer")

    def _receive(self, timeout_s: float) -> Iterator[Piece | Said]:
        if self._way is not None:
            yield from self._way.receive(timeout_s)
        elif self._wire.receive(timeout_s):
            yield from self._wire.take()

    def _check(self, said: Said) -> None:
        if said.status in (401, 403):
            raise Trouble("denied", DENIED)
        if 300 <= said.status < 400:
            raise Unfit(f"it sends its callers elsewhere, with status {said.status}")
        if said.status != 200:
            raise Trouble("lost", _WORDS.get(said.status, f"it answers with status {said.status}"))


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        return parts.hostname or "", parts.port or PORT
    except ValueError:
        raise Trouble("lost", "the port in the address is none: correct it") from None


def _lost(error: OSError) -> Trouble:
    if isinstance(error, ConnectionRefusedError):
        return Trouble("lost", "it refuses connections: is it on, and the port right?")
    if isinstance(error, TimeoutError):
        return Trouble("lost", "nobody answers at that address: is it on?")
    return Trouble("lost", error.strerror or str(error) or type(error).__name__)
