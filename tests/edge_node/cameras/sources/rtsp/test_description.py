"""Descriptions as cameras send them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_node.cameras.sources.rtsp.description import Unfit, Video, joined, video_of
from edge_node.cameras.sources.trouble import Trouble

AXIS = """v=0
o=- 1 1 IN IP4 10.0.0.5
s=Session streamed
t=0 0
a=control:rtsp://10.0.0.5/media.amp?codec=h264
a=range:npt=now-
m=audio 0 RTP/AVP 97
a=rtpmap:97 MPEG4-GENERIC/16000
m=video 0 RTP/AVP 96
b=AS:50000
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1;profile-level-id=4D0029;sprop-parameter-sets=Z00AKeKQ,aO48gA==
a=control:rtsp://10.0.0.5/media.amp/stream=0?codec=h264
"""
PLAIN = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\na=control:trackID=0\r\n"


def test_the_video_is_found_beside_the_sound() -> None:
    assert video_of(AXIS, "rtsp://10.0.0.5/axis-media/media.amp/") == Video(
        "rtsp://10.0.0.5/media.amp/stream=0?codec=h264",
        "h264",
        96,
        90000,
        bytes.fromhex("00000001674d0029e29000000001 68ee3c80".replace(" ", "")),
    )


def test_an_address_is_one_relative_to_the_base_even_behind_a_query() -> None:
    assert video_of(PLAIN, "rtsp://h/cam?channel=1").control == "rtsp://h/cam?channel=1/trackID=0"
    assert video_of(PLAIN, "rtsp://h/cam/").control == "rtsp://h/cam/trackID=0"
    assert joined("rtsp://h:99/cam/x?y", "/track1") == "rtsp://h:99/track1"
    assert joined("rtsp://h/cam", "*") == "rtsp://h/cam"


def test_sets_of_h265_are_put_together_and_bad_ones_left_out() -> None:
    told = PLAIN + "a=fmtp:96 sprop-vps=QAE=; sprop-sps=QgE=;sprop-pps=RAE=\r\n"
    assert video_of(told, "rtsp://h").sets == b"\0\0\0\1\x40\1\0\0\0\1\x42\1\0\0\0\1\x44\1"
    assert video_of(PLAIN + "a=fmtp:96 sprop-sps=%%%\r\n", "rtsp://h").sets == b""


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (PLAIN.replace("H265", "JPEG"), "it is JPEG"),
        (PLAIN.replace("RTP/AVP", "RTP/SAVP"), "RTP/SAVP"),
        (PLAIN.replace("a=rtpmap:96 H265/90000", "a=x"), "not named"),
        (PLAIN + "a=fmtp:96 packetization-mode=2\r\n", "interleaved"),
        (PLAIN + "a=fmtp:96 sprop-max-don-diff=3\r\n", "interleaved"),
        (PLAIN.replace("90000", "0"), "it is"),
    ],
)
def test_what_is_not_read_here_is_left_to_others(told: str, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        video_of(told, "rtsp://h")


@pytest.mark.parametrize("told", ["", "v=0", "m=audio 0 RTP/AVP 0", "\0\xff"])
def test_no_video_is_told(told: str) -> None:
    with pytest.raises(Trouble, match="no video"):
        video_of(told, "rtsp://h")


@given(st.text(max_size=400) | st.lists(st.sampled_from(AXIS.splitlines()), max_size=20).map("\n".join))
def test_any_text_is_read_or_refused(told: str) -> None:
    with suppress(Trouble, Unfit):
        assert video_of(told, "rtsp://h").codec == "h264"
