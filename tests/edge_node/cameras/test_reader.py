"""The thread of a camera: it comes back from whatever befalls its source."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.rtsp.server import RtspServer
from edge_node.cameras.reader import Pace, Reader
from edge_node.cameras.sources.address import parse
from edge_node.cameras.sources.opening import open_source
from edge_node.cameras.sources.shot import Shot, Still
from edge_node.cameras.sources.source import Facts, Source
from edge_node.cameras.sources.stillness import Stillness
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Wishes

ALL = Pace()
RTSP = Wishes(open_timeout_s=5.0, stall_s=1.0, decoder="software")


class Heard:
    """What a reader tells."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.whys: list[str] = []
        self.shots: list[Shot] = []
        self._news = threading.Condition()

    def happened(self, event: str, why: str, facts: Facts | None) -> None:
        with self._news:
            self.events.append(event)
            self.whys.append(why)
            self._news.notify_all()

    def took(self, shot: Shot) -> None:
        with self._news:
            self.shots.append(shot)
            self._news.notify_all()

    def until(self, true: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(true, 30)


class Lives:
    """A source whose lives are given: numbers of pictures, each with the Trouble that it ends with."""

    def __init__(self, lives: list[tuple[int, Exception | None]], at_s: Callable[[int], float] = float) -> None:
        self.lives = lives
        self.at_s = at_s
        self.opened_s: list[float] = []
        self.closed = 0

    def __call__(self, corrupt: Callable[[], None]) -> Source:
        self.opened_s.append(time.monotonic())
        corrupt()
        return self

    facts = Facts("given")
    received_bytes = 7

    def shots(self, stopped: threading.Event) -> Iterator[Still]:
        count, ends = self.lives[min(len(self.opened_s), len(self.lives)) - 1]
        rng = np.random.default_rng(1)
        for number in range(count):
            yield Still(rng.integers(0, 255, (32, 32, 3), np.uint8), self.at_s(number), number)
        if ends is not None:
            raise ends

    def close(self) -> None:
        self.closed += 1


def reader_of(source: Any, heard: Heard, pace: Pace = ALL, longest_pause_s: float = 0.5) -> Reader:
    return Reader(
        "door",
        source,
        heard,
        lambda: Stillness(10.0, 10.0),
        pace,
        longest_pause_s=longest_pause_s,
        rng=random.Random(1),
    )


def test_it_opens_a_source_again_however_it_ended_until_it_has_ended_by_itself() -> None:
    lost = Trouble("lost", "the cable")
    source = Lives([(3, lost), (0, lost), (2, ZeroDivisionError("a bug")), (1, None), (2, Trouble("ended", "over"))])
    heard = Heard()
    reader = reader_of(source, heard)
    reader.start()
    heard.until(lambda: "ended" in heard.events)
    assert reader.join(5)
    assert heard.events == ["picture", "lost", "lost", "picture", "lost", "picture", "lost", "picture", "ended"]
    assert heard.whys[1] == "the cable"
    assert heard.whys[4] == "ZeroDivisionError: a bug"
    assert (source.closed, reader.seen.attempts, reader.seen.corrupt) == (5, 5, 5)
    assert (reader.seen.decoded, reader.seen.passed, len(heard.shots)) == (8, 8, 8)


def test_its_pauses_grow_and_begin_anew_behind_a_picture() -> None:
    lost = Trouble("lost", "")
    source, heard = Lives([(0, lost), (0, lost), (0, lost), (1, lost), (1, Trouble("ended", ""))]), Heard()
    reader = reader_of(source, heard, longest_pause_s=4.0)
    reader.start()
    heard.until(lambda: "ended" in heard.events)
    pauses = [later - earlier for earlier, later in zip(source.opened_s, source.opened_s[1:], strict=False)]
    for pause, most_s in zip(pauses, (0.5, 1.0, 2.0, 0.5), strict=True):
        assert most_s / 2 <= pause < most_s + 0.4


@pytest.mark.parametrize(
    ("pace", "passed"),
    [(Pace(), 100), (Pace(stride=3), 34), (Pace(max_fps=5.0), 25), (Pace(max_fps=8.0), 40), (Pace(max_fps=50.0), 100)],
)
def test_of_a_quick_camera_so_many_pictures_pass_evenly_spread(pace: Pace, passed: int) -> None:
    """100 pictures in five seconds."""
    source, heard = Lives([(100, Trouble("ended", ""))], at_s=lambda number: 1000.0 + number / 20), Heard()
    reader = reader_of(source, heard, pace)
    reader.start()
    heard.until(lambda: "ended" in heard.events)
    assert reader.seen.passed == pytest.approx(passed, abs=1)
    assert reader.seen.skipped == 100 - reader.seen.passed
    times = [shot.at_s for shot in heard.shots]
    gaps = np.diff(times)
    assert gaps.max() <= gaps.min() + 1 / 20 + 1e-6


@pytest.mark.integration
def test_it_is_back_at_a_camera_that_was_away_and_stops_at_once_where_it_is_told(rtsp: RtspServer) -> None:
    heard = Heard()
    reader = reader_of(lambda corrupt: open_source(parse(f"{rtsp.url}/h264"), ("", ""), RTSP, corrupt=corrupt), heard)
    reader.start()
    for round_ in range(3):
        heard.until(lambda: heard.events.count("picture") == round_ + 1)  # noqa: B023 - waited for here
        rtsp.do("/h264", "kick")
        heard.until(lambda: heard.events.count("lost") == round_ + 1)  # noqa: B023
    heard.until(lambda: heard.events.count("picture") == 4)
    reader.stop()
    assert reader.join(5)
    assert heard.events == ["picture", "lost"] * 3 + ["picture", "stopped"]
