"""A camera that is none: a clip over RTSP (RFC 2326), for who has no camera at hand.

H.264 in RTP (RFC 6184: single NAL units and FU-A, packetization-mode 1) interleaved with the requests on one TCP
connection, with RTCP sender reports (RFC 3550) that tell the time. Whoever calls sees the clip from its beginning, over
and over. One path, no passwords.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

log = logging.getLogger(__name__)

CLOCK_HZ = 90_000
MOST_PAYLOAD_BYTES = 1400
MOST_REQUEST_BYTES = 8192
MOST_CALLERS = 64
_PAYLOAD_TYPE = 96
_FU_A = 28
_SPS, _PPS = 7, 8
_UNIX_TO_NTP_S = 2_208_988_800
_REPORT_EVERY_S = 5.0
_PUBLIC = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"
_FIRST_STAMP = CLOCK_HZ
"""Not 0, which FFmpeg takes for none: it would count from the second picture."""
_START_CODE = re.compile(rb"\x00\x00\x00?\x01")
_INTERLEAVED = re.compile(r"RTP/AVP/TCP(?:;[^,]*)?;interleaved=(\d{1,3})-(\d{1,3})")


class Clip(NamedTuple):
    """Access units of H.264, each as its NAL units without start codes, the first one a keyframe."""

    units: Sequence[tuple[bytes, ...]]
    fps: float

    @property
    def parameter_sets(self) -> tuple[bytes, bytes]:
        """SPS and PPS. Raises ValueError where the clip does not begin with them."""
        first = {nal[0] & 0x1F: nal for nal in self.units[0]}
        try:
            return first[_SPS], first[_PPS]
        except KeyError:
            raise ValueError(
                "The clip's first picture brings no parameter sets: encode it with repeated headers."
            ) from None


def clip_of(packets: Iterable[bytes], fps: float) -> Clip:
    """Of packets in Annex B, as encoders give them. Raises ValueError for a clip without pictures."""
    units = [tuple(nal for nal in _START_CODE.split(packet) if nal) for packet in packets]
    clip = Clip([unit for unit in units if unit], fps)
    if not clip.units:
        raise ValueError("The clip has no pictures.")
    _ = clip.parameter_sets
    return clip


class Request(NamedTuple):
    """`headers` by lower-case names."""

    method: str
    url: str
    headers: Mapping[str, str]


class RtspCamera:
    """`port` 0 is any that is free."""

    def __init__(self, clip: Clip, *, path: str = "/clip", host: str = "127.0.0.1", port: int = 0) -> None:
        self._clip = clip
        self._path = path
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """The URL."""
        self._server = await asyncio.start_server(self._called, self._host, self._port, limit=MOST_REQUEST_BYTES)
        port = self._server.sockets[0].getsockname()[1]
        return f"rtsp://{self._host}:{port}{self._path}"

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        await self._server.wait_closed()

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            if len(self._callers) <= MOST_CALLERS:
                await _Caller(self._clip, self._path, reader, writer).answer()
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            log.debug("a caller is gone: %r", error)
        except asyncio.CancelledError:
            # By `stop` alone. Python 3.11's streams would report the end of such a task as a defect.
            log.debug("a caller is sent away")
        finally:
            self._callers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Caller:
    """One connection, from its first request to its end."""

    def __init__(self, clip: Clip, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clip = clip
        self._path = path
        self._reader = reader
        self._writer = writer
        self._channel: int | None = None
        self._playing: asyncio.Task[None] | None = None

    async def answer(self) -> None:
        """Until it hangs up, or says what nobody understands."""
        try:
            while (request := await self._next()) is not None:
                self._writer.write(self._reply(request))
                await self._writer.drain()
                if request.method == "PLAY" and self._channel is not None and self._playing is None:
                    self._playing = asyncio.create_task(self._play(self._channel))
                if request.method == "TEARDOWN":
                    return
        finally:
            if self._playing is not None:
                self._playing.cancel()
                await asyncio.gather(self._playing, return_exceptions=True)

    async def _next(self) -> Request | None:
        """None at the end of the connection. Receivers' reports on the way are passed over."""
        while (first := await self._reader.read(1)) == b"$":
            _, size = struct.unpack(">BH", await self._reader.readexactly(3))
            await self._reader.readexactly(size)
        if not first:
            return None
        return parsed(first + await self._reader.readuntil(b"\r\n\r\n"))

    def _reply(self, request: Request) -> bytes:
        match request.method:
            case "OPTIONS":
                return _response(request, 200, {"Public": _PUBLIC})
            case "DESCRIBE" | "SETUP" if not self._is_here(request.url):
                return _response(request, 404)
            case "DESCRIBE":
                told = {"Content-Type": "application/sdp", "Content-Base": f"{request.url.rstrip('/')}/"}
                return _response(request, 200, told, description(self._clip).encode())
            case "SETUP":
                return self._set_up(request)
            case "PLAY" if self._channel is None:
                return _response(request, 455)
            case "PLAY" | "GET_PARAMETER" | "TEARDOWN":
                return _response(request, 200)
        return _response(request, 501)

    def _set_up(self, request: Request) -> bytes:
        asked = _INTERLEAVED.search(request.headers.get("transport", ""))
        if asked is None or int(asked[1]) > 254:
            return _response(request, 461)
        self._channel = int(asked[1])
        told = f"RTP/AVP/TCP;unicast;interleaved={self._channel}-{self._channel + 1}"
        return _response(request, 200, {"Transport": told})

    def _is_here(self, url: str) -> bool:
        path = re.sub(r"^rtsp://[^/]*", "", url).partition("?")[0]
        return path == self._path or path.startswith(f"{self._path}/")

    async def _play(self, channel: int) -> None:
        """At its pace; a caller who reads too slowly is waited for."""
        began_s, packets, reported_s = time.monotonic(), Packets(), 0.0
        number = 0
        while True:
            unit = self._clip.units[number % len(self._clip.units)]
            stamp = (_FIRST_STAMP + round(number / self._clip.fps * CLOCK_HZ)) & 0xFFFFFFFF
            if time.monotonic() - reported_s >= _REPORT_EVERY_S:
                reported_s = time.monotonic()
                self._send(channel + 1, packets.report(stamp, time.time()))
            for packet in packets.of(unit, stamp):
                self._send(channel, packet)
            await self._writer.drain()
            number += 1
            await asyncio.sleep(max(0.0, began_s + number / self._clip.fps - time.monotonic()))

    def _send(self, channel: int, packet: bytes) -> None:
        self._writer.write(struct.pack(">cBH", b"$", channel, len(packet)) + packet)


class Packets:
    """RTP packets of one sender, in their order."""

    def __init__(self, ssrc: int = 0x466F6F74) -> None:
        self._ssrc = ssrc
        self._sequence = 0
        self._sent = self._bytes = 0

    def of(self, unit: Sequence[bytes], stamp: int) -> Iterator[bytes]:
        """Of one access unit; the marker is on the last one."""
        payloads = [payload for nal in unit for payload in fragments(nal)]
        for at, payload in enumerate(payloads, 1):
            marker = 0x80 if at == len(payloads) else 0
            head = struct.pack(">BBHII", 0x80, marker | _PAYLOAD_TYPE, self._sequence, stamp, self._ssrc)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._sent += 1
            self._bytes += len(payload)
            yield head + payload

    def report(self, stamp: int, now_s: float) -> bytes:
        """A sender report (RFC 3550, 6.4.1): that `stamp` is `now_s`, in unix time."""
        whole, part = divmod(now_s + _UNIX_TO_NTP_S, 1.0)
        told = (0x80, 200, 6, self._ssrc, int(whole), int(part * (1 << 32)), stamp, self._sent, self._bytes)
        return struct.pack(">BBHIIIIII", *(value & 0xFFFFFFFF for value in told))


def fragments(nal: bytes) -> Iterator[bytes]:
    """Payloads for one NAL unit: itself, or where it is too large FU-A pieces of it (RFC 6184, 5.8)."""
    if len(nal) <= MOST_PAYLOAD_BYTES:
        yield nal
        return
    indicator, kind = nal[0] & 0xE0 | _FU_A, nal[0] & 0x1F
    size = MOST_PAYLOAD_BYTES - 2
    for begin in range(1, len(nal), size):
        first, last = 0x80 * (begin == 1), 0x40 * (begin + size >= len(nal))
        yield bytes((indicator, first | last | kind)) + nal[begin : begin + size]


def description(clip: Clip) -> str:
    """SDP (RFC 4566)."""
    sets = ",".join(base64.b64encode(each).decode() for each in clip.parameter_sets)
    profile = clip.parameter_sets[0][1:4].hex()
    lines = (
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=Foothill",
        "t=0 0",
        "a=control:*",
        f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}",
        "c=IN IP4 0.0.0.0",
        f"a=rtpmap:{_PAYLOAD_TYPE} H264/{CLOCK_HZ}",
        f"a=fmtp:{_PAYLOAD_TYPE} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}",
        f"a=framerate:{clip.fps:g}",
        "a=control:track1",
    )
    return "".join(f"{line}\r\n" for line in lines)


def parsed(head: bytes) -> Request:
    """Raises ValueError for what is no request of RTSP."""
    first, *rest = head.decode("ascii").rstrip("\r\n").split("\r\n")
    method, url, version = first.split(" ")
    if version != "RTSP/1.0":
        raise ValueError(f"{version[:40]!r} is not spoken here.")
    fields = (line.partition(":") for line in rest)
    return Request(method, url, {name.strip().lower(): value.strip() for name, _, value in fields})


_REASONS = {
    200: "OK",
    404: "Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
}


def _response(request: Request, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    told = {"CSeq": request.headers.get("cseq", "0"), "Session": "1", **(headers or {})}
    if body:
        told["Content-Length"] = str(len(body))
    lines = [f"RTSP/1.0 {status} {_REASONS[status]}", *(f"{name}: {value}" for name, value in told.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body
