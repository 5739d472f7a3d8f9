"""The page of a report: whole, safe whatever a node said, and drawn where there is a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.acceptance import Acceptance, BundleSeen, Check, Curve, Point
from hil.chart import chart, ticks
from hil.checks.latency import curve_of
from hil.page import page_of
from runtime.links.bundles.acceptance_reports import seal
from runtime.links.trust.signatures import generate
from tests.fleet.scripted import FINGERPRINT
from tests.model_compiler.reporting.browser import find_chromium, open_tab

NASTY = "<script>alert(1)</script>\"'&\x1b[31m\u202e"


def point(loop: str, at: int, per_s: float, p50: float) -> Point:
    return msgspec.convert(
        {
            "loop": loop,
            "concurrency": at,
            "rate": per_s,
            "throughput": per_s,
            "p50_ms": p50,
            "p95_ms": p50 * 2,
            "p99_ms": p50 * 3,
            "answered": int(per_s),
            "refused": 0,
            "failed": 0,
            "client_share": 0.5,
            "phases_ms": {"queue": 0.1, "infer": p50 / 2},
        },
        Point,
    )


POINTS = (
    point("closed", 1, 200, 5), point("closed", 2, 350, 6), point("closed", 4, 380, 11), point("closed", 8, 385, 21),
    point("open", 0, 190, 5), point("open", 0, 340, 9),
)  # fmt: skip
CURVE = curve_of("detector", POINTS)
REPORT = Acceptance(
    NASTY, f"http://{NASTY}", NASTY, "cpu-x86", "failed", 1.7e9, 61.0, "0.1",
    (Check("golden", "failed", NASTY, NASTY), Check("thermals", "skipped", "none", optional=True)),
    (BundleSeen("detector", NASTY, NASTY, NASTY, NASTY),), (CURVE,), FINGERPRINT, True,
)  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)


def test_a_page_names_nothing_outside_itself_and_takes_no_markup_from_a_node() -> None:
    page = page_of(seal(REPORT, generate()))
    assert not set(Tags(page).found) & {"script", "img", "link", "iframe", "a"}
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert "\x1b" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "It was interrupted." in page


def test_saturation_is_the_fewest_requests_at_once_that_reach_nearly_the_most() -> None:
    assert (CURVE.saturated_at, CURVE.most_per_s) == (4, 385.0)
    assert curve_of("none", ()) == Curve("none", (), 0, 0.0)


@given(
    st.lists(
        st.builds(
            point, st.sampled_from(["closed", "open"]), st.integers(1, 256), st.floats(0.0, 1e6), st.floats(0.001, 1e7)
        ),
        max_size=12,
    )
)
def test_any_curve_can_be_drawn_within_its_frame(points: list[Point]) -> None:
    drawn = chart(curve_of("x", points))
    if not drawn:
        assert not any(point.answered for point in points)
        return
    for node in ElementTree.fromstring(drawn).iter():
        for name in ("cx", "x"):
            assert 0 <= float(node.get(name, 0)) <= 720
        assert -20 <= float(node.get("cy", 0)) <= 340


@given(st.floats(0.01, 1e7))
def test_ticks_are_few_and_round(most: float) -> None:
    found = ticks(most)
    assert 2 <= len(found) <= 9
    assert found[0] == 0
    assert found[-1] <= most


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here")
async def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    chromium = find_chromium()
    assert chromium is not None
    file = tmp_path / "report.html"
    file.write_text(page_of(seal(REPORT, generate())))
    async with open_tab(chromium, tmp_path / "profile") as tab:
        for width, dark, media in ((1200, False, "screen"), (390, True, "screen"), (680, False, "print")):
            await tab.look_like(width=width, dark=dark, media=media)
            await tab.open(file.as_uri())
            assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert await tab.evaluate("document.querySelectorAll('svg path.line').length") == 3
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith("file:")] == []
