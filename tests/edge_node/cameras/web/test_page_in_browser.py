"""The page of a node's cameras, in a real browser."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.camera_events import RuleEvent
from edge_node.cameras.web import routes
from tests.edge_node.cameras.house import SEVEN, House, pattern
from tests.model_compiler.reporting.browser import Tab, find_chromium, open_tab

SHOTS = os.environ.get("FOOTHILL_SHOTS", "")
"""A folder for screenshots, for who wants to look at them."""
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed"),
]


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    chromium = find_chromium()
    assert chromium is not None
    async with open_tab(chromium, tmp_path / "profile") as tab:
        yield tab


async def until(tab: Tab, expression: str) -> None:
    async def wait() -> None:
        while not await tab.evaluate(expression):  # noqa: ASYNC110 - the page has no event for a test
            await asyncio.sleep(0.1)

    await asyncio.wait_for(wait(), 30)


def tile(name: str, what: str) -> str:
    """False where there is no such tile yet."""
    return f"(t => t !== null && t.{what})(document.querySelector('article[data-camera=\"{name}\"]'))"


async def test_tiles_show_pictures_states_and_rates_and_events_are_told(house: House, tab: Tab) -> None:
    await house.serve(bias=SEVEN)
    url = await house.listen((pattern("door"), pattern("yard", url="rtsp://127.0.0.1:9/a", model="")))
    await tab.look_like(width=1200)
    await tab.open(f"{url}/cameras")
    await until(tab, tile("door", "querySelector('img').naturalWidth > 0"))
    await until(tab, tile("door", "querySelector('.state').textContent === 'live'"))
    await until(tab, tile("yard", "querySelector('.why').textContent.includes('refuses connections')"))
    await until(tab, "document.getElementById('sum').textContent === '1 of 2 live'")
    await until(tab, "document.getElementById('log').textContent.includes('door: 7')")
    assert "640 × 480" in await tab.evaluate(tile("door", "querySelector('.rates').textContent"))
    if SHOTS:
        await asyncio.to_thread(Path(SHOTS, "cameras.png").write_bytes, await tab.screenshot())
    assert [text for text in tab.complaints if "503" not in text] == []
    assert {request.split("/")[2] for request in tab.requests} == {url.split("/")[2]}


async def test_a_tile_grows_into_a_live_view_and_back(house: House, tab: Tab) -> None:
    await house.serve(bias=SEVEN)
    url = await house.listen((pattern("door"),))
    await tab.open(f"{url}/cameras")
    await until(tab, tile("door", "querySelector('img').naturalWidth > 0"))
    await tab.evaluate(tile("door", "querySelector('button').click()"))
    await until(tab, tile("door", "querySelector('img').src.endsWith('/live')"))
    await until(tab, tile("door", "querySelector('img').naturalWidth > 0"))
    await tab.evaluate(tile("door", "querySelector('button').click()"))
    await until(tab, tile("door", "querySelector('img').src.includes('/snapshot')"))


async def test_where_too_many_listen_it_listens_again_later(
    house: House, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.serve(bias=SEVEN)
    url = await house.listen((pattern("door"),))
    with monkeypatch.context() as full:
        full.setattr(routes, "MAX_LISTENERS", 0)
        await tab.open(f"{url}/cameras")
        await until(tab, tile("door", "querySelector('.state').textContent === 'live'"))
        assert await tab.evaluate("document.getElementById('log').textContent") == ""
    await until(tab, "document.getElementById('log').textContent.includes('door: 7')")


async def test_it_says_when_the_node_is_away_and_when_it_is_back(house: House, tab: Tab) -> None:
    url = await house.listen()
    await tab.open(f"{url}/cameras")
    await until(tab, "document.getElementById('sum').textContent === 'There are no cameras yet.'")
    assert house.runner is not None
    await house.runner.cleanup()
    await until(tab, "document.getElementById('sum').classList.contains('away')")


async def test_names_and_reasons_are_text_and_never_markup(house: House, tab: Tab, tmp_path: Path) -> None:
    url = await house.listen((pattern("door", url="<img src=x onerror=boom()>.mp4", model=""),))
    await tab.open(f"{url}/cameras")
    await until(tab, tile("door", "querySelector('.why').textContent.length > 0"))
    assert await tab.evaluate("document.querySelectorAll('article img').length") == 1


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
async def test_nothing_hangs_over_the_edge(house: House, tab: Tab, width: int, dark: bool) -> None:
    names = ("door", "a-camera-with-a-very-long-name-above-the-entrance-of-the-yard")
    url = await house.listen(tuple(pattern(name, model="") for name in names))
    await tab.look_like(width=width, dark=dark)
    await tab.open(f"{url}/cameras")
    await until(tab, "[...document.querySelectorAll('article img')].filter((i) => i.naturalWidth).length === 2")
    assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_an_event_with_a_clip_leads_to_it(house: House, tab: Tab) -> None:
    url = await house.listen((pattern("door", model=""),))
    house.feed.say(RuleEvent, "door", 1.8e9, event="door-1-7", phase="start", rule="loiter", clip="/v1/x")
    house.feed.say(RuleEvent, "door", 1.8e9, event="door-1-8", phase="start", rule="parked")
    await tab.open(f"{url}/cameras")
    await until(tab, "document.getElementById('log').textContent.includes('door: parked holds')")
    links = await tab.evaluate("[...document.querySelectorAll('#log a')].map(a => [a.textContent, a.href].join(' '))")
    assert links == [f"clip {url}/v1/cameras/door/clips/door-1-7"]
    assert tab.complaints == []
