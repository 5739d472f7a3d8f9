"""A clip in a real page, as somebody looks at it who was told of an event."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge_node.cameras.recording.footage import H264, H264_ANNEX_B, film
from tests.edge_node.cameras.recording.test_cutter import Set
from tests.model_compiler.reporting.browser import find_chromium, open_tab

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

CAN_PLAY = "document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.42E01E\"')"
PLAYED = """
new Promise((tell) => {
    const video = document.querySelector('video'), seen = {};
    video.onerror = () => tell({error: video.error.message});
    video.onended = () => {
        Object.assign(seen, {
            seconds: video.duration, width: video.videoWidth, at: video.currentTime,
            corrupted: video.getVideoPlaybackQuality().corruptedVideoFrames,
        });
        video.onseeked = () => tell({...seen, sought: video.currentTime});
        video.currentTime = 1.5;
    };
    video.play().catch((error) => tell({error: String(error)}));
})
"""


@pytest.mark.parametrize("kind", [H264, H264_ANNEX_B], ids=["from-mp4", "as-over-rtsp"])
async def test_a_clip_plays_and_can_be_searched_in(tmp_path: Path, kind: tuple[str, dict[str, str], str]) -> None:
    on = Set(tmp_path)
    on.camera.play(film(tmp_path / "source", kind, seconds=6))
    on.want(at_s=3.4)
    on.cutter.go_on()
    (listed,) = on.clips
    page = tmp_path / "page.html"
    page.write_text(f"<video muted src='{on.path(listed).as_uri()}'></video>")
    assert CHROMIUM is not None
    async with open_tab(CHROMIUM, tmp_path / "profile") as tab:
        await tab.open(page.as_uri())
        if not await tab.evaluate(CAN_PLAY):
            pytest.skip("this Chromium plays no H.264")
        answer = await tab.send("Runtime.evaluate", expression=PLAYED, awaitPromise=True, returnByValue=True)
        told = answer["result"]["value"]
    assert told == {
        "seconds": pytest.approx(listed.clip.seconds, abs=0.05),
        "width": 160,
        "at": pytest.approx(listed.clip.seconds, abs=0.05),
        "corrupted": 0,
        "sought": 1.5,
    }
