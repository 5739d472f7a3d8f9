"""A clip over RTSP, as a real client sees it: FFmpeg, through PyAV."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rtsp.clips import walkers
from foothill.simulators.rtsp import (
    MOST_PAYLOAD_BYTES,
    MOST_REQUEST_BYTES,
    Clip,
    Packets,
    RtspCamera,
    clip_of,
    fragments,
    parsed,
)

FPS, PICTURES = 25, 20


def encoded(*, crf: int = 20) -> Iterator[bytes]:
    codec = av.CodecContext.create("libx264", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt, codec.framerate = 320, 240, "yuv420p", FPS  # type: ignore[assignment]
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "bf": "0", "g": "10", "crf": str(crf)}
    for picture in walkers(PICTURES):
        yield from map(bytes, codec.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
    yield from map(bytes, codec.encode(None))


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Its keyframes are larger than a packet."""
    made = clip_of(encoded(crf=5), FPS)
    assert any(len(nal) > 3 * MOST_PAYLOAD_BYTES for nal in made.units[0])
    return made


@pytest.fixture
async def url(clip: Clip) -> AsyncIterator[str]:
    camera = RtspCamera(clip)
    yield await camera.start()
    await camera.stop()


def watched(url: str, count: int, transport: str = "tcp") -> list[tuple[float, np.ndarray]]:
    with av.open(url, options={"rtsp_transport": transport}, timeout=5.0) as container:
        frames = islice(container.decode(video=0), count)
        return [(float(frame.time or 0.0), frame.to_ndarray(format="gray")) for frame in frames]


async def test_it_plays_over_and_over_at_its_own_pace(url: str) -> None:
    began_s = time.monotonic()
    frames = await asyncio.to_thread(watched, url, 2 * PICTURES + 5)
    assert time.monotonic() - began_s > 1.5 * PICTURES / FPS
    times = np.diff([at_s for at_s, _ in frames])
    assert np.allclose(times[1:], 1 / FPS, atol=0.002)
    for number in (0, 1, 5):
        assert np.array_equal(frames[number][1], frames[number + PICTURES][1])
    assert not np.array_equal(frames[0][1], frames[5][1])


async def test_callers_do_not_share_their_clip_and_one_that_hangs_up_disturbs_nobody(url: str) -> None:
    both = await asyncio.gather(*(asyncio.to_thread(watched, url, count) for count in (5, 30)))
    assert np.array_equal(both[0][0][1], both[1][0][1])
    assert len(both[1]) == 30


async def test_datagrams_are_refused(url: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await asyncio.to_thread(watched, url, 1, "udp")


async def asked(url: str, *requests: bytes) -> list[str]:
    """The first line of each answer; what ends the connection ends the list."""
    port = int(url.split(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = []
    for request in requests:
        writer.write(request)
        head = (await asyncio.wait_for(reader.read(65536), 5)).decode()
        lines.append(head.partition("\r\n")[0])
    writer.close()
    return lines


def request(method: str, path: str = "rtsp://h/clip", *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} RTSP/1.0", "CSeq: 7", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("requests", "answers"),
    [
        ([request("OPTIONS")], ["RTSP/1.0 200 OK"]),
        ([request("DESCRIBE", "rtsp://h/other")], ["RTSP/1.0 404 Not Found"]),
        ([request("PLAY")], ["RTSP/1.0 455 Method Not Valid in This State"]),
        (
            [request("SETUP", "rtsp://h/clip/track1", "Transport: RTP/AVP;unicast;client_port=5000-5001")],
            ["RTSP/1.0 461 Unsupported Transport"],
        ),
        ([request("RECORD")], ["RTSP/1.0 501 Not Implemented"]),
        ([b"GET / HTTP/1.1\r\n\r\n"], [""]),
        ([b"\xff\xfe\r\n\r\n"], [""]),
        ([b"X" * (MOST_REQUEST_BYTES + 10)], [""]),
        ([b"$\x01\x00\x04abcd" + request("OPTIONS")], ["RTSP/1.0 200 OK"]),
    ],
)
async def test_it_answers_as_the_protocol_says_and_hangs_up_on_nonsense(
    url: str, requests: list[bytes], answers: list[str]
) -> None:
    assert await asked(url, *requests) == answers


@given(st.binary(min_size=1, max_size=10_000))
def test_fragments_put_together_are_what_they_were(nal: bytes) -> None:
    pieces = list(fragments(nal))
    assert all(len(piece) <= MOST_PAYLOAD_BYTES for piece in pieces)
    if len(pieces) == 1:
        assert pieces == [nal]
        return
    heads = [piece[1] for piece in pieces]
    assert [head & 0xC0 for head in heads] == [0x80, *[0] * (len(pieces) - 2), 0x40]
    whole = bytes([(pieces[0][0] & 0xE0) | (heads[0] & 0x1F)]) + b"".join(piece[2:] for piece in pieces)
    assert whole == nal


def test_a_report_says_what_time_it_is() -> None:
    packets = Packets()
    list(packets.of([b"\x65" + bytes(2000)], 9000))
    told = packets.report(9000, 1_800_000_000.5)
    assert (told[1], len(told)) == (200, 28)
    seconds, part, stamp, count, size = (int.from_bytes(told[at : at + 4], "big") for at in range(8, 28, 4))
    assert (seconds - 2_208_988_800, part >> 31, stamp, count, size) == (1_800_000_000, 1, 9000, 2, 2004)


@pytest.mark.parametrize("packets", [[], [b""], [b"\x00\x00\x01\x65abc"]])
def test_what_is_no_clip_is_refused(packets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="clip"):
        clip_of(packets, FPS)


@pytest.mark.parametrize("head", [b"", b"OPTIONS", b"OPTIONS * HTTP/1.1", b"a b c d"])
def test_what_is_no_request_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(head + b"\r\n\r\n")


async def test_each_picture_has_its_own_time(url: str) -> None:
    """FFmpeg takes a stream's first stamp for none where it is 0, and counts from the second."""
    sources = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(int) for picture in walkers(PICTURES)]
    for time_s, picture in (await asyncio.to_thread(watched, url, 10))[5:]:
        unlike = [float(np.abs(source - picture.astype(int)).mean()) for source in sources]
        assert int(np.argmin(unlike)) == round(time_s * FPS) % PICTURES
