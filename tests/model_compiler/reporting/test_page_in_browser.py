"""The report in a real browser: quiet, within a phone's width, dark where that is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from model_compiler.reporting.findings import CompileReport
from model_compiler.reporting.report import write_report
from tests.model_compiler.reporting.browser import Tab, find_chromium, open_tab
from tests.model_compiler.reporting.example import full
from tests.model_compiler.reporting.test_report import hostile

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]
PHONE = 390
_LEANS_OUT = """
[...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll") && !e.closest("svg")
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    assert CHROMIUM is not None
    async with open_tab(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def tab(browser: Tab) -> Tab:
    browser.complaints.clear()
    browser.requests.clear()
    return browser


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    findings = msgspec.convert(hostile(msgspec.to_builtins(full())), CompileReport)
    return write_report(findings, tmp_path_factory.mktemp("hostile"))


async def test_the_page_is_quiet_and_fits_every_width(tab: Tab, full_page: Path, bare_page: Path) -> None:
    for page in (full_page, bare_page):
        for width in (PHONE, 768, 1280):
            await tab.look_like(width=width)
            await tab.open(page.as_uri())
            assert await tab.evaluate("document.documentElement.scrollWidth") <= width
            assert await tab.evaluate("window.innerWidth") <= width
            assert await tab.evaluate(_LEANS_OUT) == []
    assert tab.complaints == []
    assert {url for url in tab.requests if not url.startswith("data:")} == {full_page.as_uri(), bare_page.as_uri()}


async def test_tables_of_a_real_report_need_no_scrolling_on_a_phone(tab: Tab, full_page: Path) -> None:
    await tab.look_like(width=PHONE)
    await tab.open(full_page.as_uri())
    scrolled = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert await tab.evaluate(scrolled) == 0


async def test_dark_is_dark_and_paper_is_white_however_dark_it_is(tab: Tab, full_page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    letter = "getComputedStyle(document.querySelector('svg text')).fill"
    seen = []
    for dark, media in ((False, "screen"), (True, "screen"), (True, "print")):
        await tab.look_like(width=1000, dark=dark, media=media)
        await tab.open(full_page.as_uri())
        seen.append((await tab.evaluate(ground), await tab.evaluate(letter)))
    (light, light_ink), (dark_ground, dark_ink), (paper, paper_ink) = seen
    assert light == "rgb(253, 253, 252)"
    assert dark_ground == "rgb(19, 22, 20)"
    assert paper == "rgb(255, 255, 255)"
    assert light_ink == paper_ink != dark_ink


async def test_hostile_names_run_nothing_and_break_no_layout(tab: Tab, hostile_page: Path) -> None:
    await tab.look_like(width=PHONE)
    await tab.open(hostile_page.as_uri())
    assert await tab.evaluate("document.querySelectorAll('script, img, iframe').length") == 0
    assert await tab.evaluate("document.querySelectorAll('style').length") == 1
    assert await tab.evaluate("window.innerWidth") <= PHONE
    assert tab.complaints == []


async def test_pictures_are_drawn_with_letters_large_enough_for_a_phone(tab: Tab, full_page: Path) -> None:
    await tab.look_like(width=PHONE)
    await tab.open(full_page.as_uri())
    sizes = "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
    heights = await tab.evaluate(sizes)
    assert len(heights) > 50
    assert min(heights) >= 8.5
