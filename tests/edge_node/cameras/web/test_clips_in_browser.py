"""A clip as a browser opens it from the node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.edge_node.cameras.recording.test_in_browser import CAN_PLAY
from tests.edge_node.cameras.web.test_clips import Videotheque, on  # noqa: F401 - a fixture
from tests.model_compiler.reporting.browser import find_chromium, open_tab

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

PLAYED = """
new Promise((tell) => {
    const video = document.querySelector('video');
    video.muted = true;
    video.onerror = () => tell(video.error.message);
    video.onended = () => tell(video.currentTime);
    video.play().catch((error) => tell(String(error)));
})
"""


async def test_it_plays_in_a_tab_of_its_own(on: Videotheque, tmp_path: Path) -> None:  # noqa: F811
    await on.write("e")
    _, page = await on.ask("/v1/cameras/yard/clips")
    assert CHROMIUM is not None
    async with open_tab(CHROMIUM, tmp_path / "profile") as tab:
        await tab.open(f"{on.url}/v1/cameras/yard/clips/e")
        if not await tab.evaluate(CAN_PLAY):
            pytest.skip("this Chromium plays no H.264")
        call = tab.send("Runtime.evaluate", expression=PLAYED, awaitPromise=True, returnByValue=True)
        answer = await asyncio.wait_for(call, 30)
    assert answer["result"]["value"] == pytest.approx(page["clips"][0]["clip"]["seconds"], abs=0.1)
