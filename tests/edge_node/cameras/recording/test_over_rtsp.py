"""What a camera sends over RTSP is in the ring as it was encoded, and can be cut into a clip that plays."""

from __future__ import annotations

import struct
import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from edge_node.cameras.recording.ring import Ring
from edge_node.cameras.sources.address import parse
from edge_node.cameras.sources.opening import open_source
from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Wishes
from tests.edge_node.cameras.recording import footage
from tests.edge_node.cameras.sources.rtsp.odd_camera import OddCamera, interleaved, odd_camera
from tests.edge_node.cameras.sources.rtsp.packets import SOURCE, payloads, rtp, units_of

_TICKS = 90_000
_BYE = interleaved(struct.pack(">BBHI", 0x81, 203, 1, SOURCE), 1)


def play(camera: OddCamera, film: Path, codec: str) -> int:
    """What a camera sends of a film, in the order of decoding; how many pictures that is."""
    base, number, sent = footage.base_of(film), 0, []
    encoded = footage.packets(film)
    for picture in encoded:
        assert picture.pts is not None
        parts = list(payloads(units_of(picture.data), 1200, hevc=codec == "hevc"))
        for at, payload in enumerate(parts):
            ticks = round(picture.pts * base * _TICKS)
            sent.append(interleaved(rtp(payload, number, ticks, marker=at == len(parts) - 1)))
            number += 1
    camera.sends = [*sent, _BYE]
    camera.sdp = camera.sdp.replace("H264", "H265" if codec == "hevc" else "H264")
    return len(encoded)


def seen(camera: OddCamera, ring: Ring) -> list[Shot]:
    shots: list[Shot] = []
    wishes = Wishes(open_timeout_s=5.0, stall_s=2.0, decoder="software")
    source = open_source(parse(camera.url), ("", ""), wishes, corrupt=lambda: None, tap=ring)
    with closing(source), pytest.raises(Trouble, match="the stream ended"):
        shots.extend(source.shots(threading.Event()))
    return shots


@pytest.mark.parametrize(
    ("kind", "codec", "delayed"),
    [
        (footage.H264_ANNEX_B, "h264", True),
        (footage.HEVC_ANNEX_B, "hevc", True),
        (("libx264", {"tune": "zerolatency"}, "mpegts"), "h264", False),
    ],
)
def test_a_clip_has_the_pictures_and_the_times_that_were_sent(
    tmp_path: Path, kind: tuple[str, dict[str, str], str], codec: str, delayed: bool
) -> None:
    film = footage.film(tmp_path / "sent", kind, seconds=3.0)
    ring = Ring("door", hold_s=60.0, max_bytes=1 << 26)
    with odd_camera() as camera:
        count = play(camera, film, codec)
        shots = seen(camera, ring)
    assert len(shots) >= count - 4  # what a decoder holds back to put it in order
    mark = ring.mark(0.0)
    assert mark is not None
    entries = ring.read(mark.segment, 0).entries
    assert len(entries) == count
    clip = tmp_path / "clip.mp4"
    with clip.open("wb") as file:
        made = mark.segment.parameters.begin(file, mark.segment.sets, entries[0].picture.data)
        made.add(entry.picture for entry in entries)
        made.close()
    assert (made.width, made.height) == (160, 120)
    played = footage.frames(clip)
    assert len(played) == count
    times = [picture.time or 0.0 for picture in played]
    steps = [late - early for early, late in pairwise(times)]
    assert steps[8:] == pytest.approx([1 / footage.RATE] * len(steps[8:]), abs=0.002)
    assert any(entry.picture.pts > entry.picture.dts for entry in entries) == delayed
