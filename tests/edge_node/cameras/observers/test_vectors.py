"""From vectors to events: one for as long as the pictures are like its first."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.camera_events import CameraMessage, PictureEvent
from contracts.manifest import Postprocess
from edge_node.cameras.feed import Feed
from edge_node.cameras.observers.vectors import EmbeddingConfig, Vectors
from edge_node.cameras.sources.shot import Shot, Still
from edge_node.pipelines import Looked
from tests.edge_node.cameras.house import House, pattern

BLANK = np.zeros((4, 4, 3), np.uint8)


class Watch:
    """A camera at ten pictures a second, whose model says what the test says."""

    def __init__(self, change: float = 0.2, update_every_s: float = 0.0) -> None:
        self.feed = Feed("fra", 1)
        self.heard: list[CameraMessage] = []
        self.feed.listeners.append(lambda said: self.heard.append(said.message))
        self.at_s = 1000.0
        numbers = count(1)
        self.vectors = Vectors(
            EmbeddingConfig(change),
            lambda at_s, **told: self.feed.say(PictureEvent, "door", at_s, **told),
            lambda: f"e{next(numbers)}",
            snapshot_of=lambda event: "",
            update_every_s=update_every_s,
        )

    def see(self, *vector: float) -> None:
        self.at_s += 0.1
        loaded = SimpleNamespace(manifest=SimpleNamespace(postprocess=Postprocess("v", "vector")))
        looked = SimpleNamespace(outputs={"v": np.array([vector], np.float32)}, loaded=loaded)
        self.vectors.saw(cast(Shot, Still(BLANK, self.at_s, 1)), cast(Looked, looked))

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(message.event, message.phase) for message in cast(list[Any], self.heard)]


def test_an_event_holds_while_pictures_are_like_its_first_and_then_the_next_begins() -> None:
    watch = Watch()
    for vector in ((1.0, 0.0), (2.0, 0.1), (1.0, 0.5), (0.0, 1.0), (0.1, 3.0), (1.0, 0.0)):
        watch.see(*vector)
    watch.vectors.end(watch.at_s)
    assert watch.told == [(f"e{number}", phase) for number in (1, 2, 3) for phase in ("start", "end")]
    first, ended, second = cast(list[PictureEvent], watch.heard[:3])
    assert (first.vector, ended.vector, second.vector) == ((1.0, 0.0), (), (0.0, 1.0))
    assert (ended.began_at_s, ended.at_s) == (first.at_s, second.at_s)


def test_events_begin_no_faster_than_they_may() -> None:
    watch = Watch(update_every_s=1.0)
    for number in range(40):
        watch.see(float(number % 2), float(1 - number % 2))
    begun = [message.at_s for message in watch.heard if isinstance(message, PictureEvent) and message.phase == "start"]
    assert np.diff(begun).min() >= 1.0 - 1e-6
    assert len(begun) == 4


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    watch = Watch(update_every_s=1.0)
    watch.see(1.0, 0.0)
    watch.at_s -= 500.0
    watch.see(0.0, 1.0)
    assert watch.told == [("e1", "start"), ("e1", "end"), ("e2", "start")]


@pytest.mark.parametrize("vector", [(0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_what_has_no_direction_says_nothing(vector: tuple[float, float]) -> None:
    watch = Watch()
    watch.see(*vector)
    assert watch.told == []
    watch.see(1.0, 0.0)
    watch.see(*vector)
    assert watch.told == [("e1", "start")]
    assert watch.vectors.marks()[0].text == "distance 0.00"


@given(st.lists(st.tuples(*[st.floats(-5, 5, width=32)] * 3), max_size=30), st.floats(0.01, 1.9))
def test_every_event_that_begins_ends_before_the_next_and_is_unlike_the_last(
    vectors: list[tuple[float, float, float]], change: float
) -> None:
    watch = Watch(change)
    for vector in vectors:
        watch.see(*vector)
    watch.vectors.end(watch.at_s)
    events = [event for event, phase in watch.told if phase == "start"]
    assert watch.told == [(event, phase) for event in events for phase in ("start", "end")]
    told = cast(list[PictureEvent], watch.heard)
    starts = [np.array(message.vector) for message in told if message.phase == "start"]
    for one, other in pairwise(starts):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert 1 - cosine > change - 1e-6


async def test_a_camera_with_an_embedding_model_tells_what_it_shows(tmp_path: Path) -> None:
    house = await House(tmp_path).open()
    await house.serve_embedding()
    await house.cameras.put(pattern(embedding={"change": 0.001}, update_every_s=0.2))
    await house.until(lambda: len(house.messages(PictureEvent, "door")) >= 3)
    start, end, second = house.messages(PictureEvent, "door")[:3]
    assert (start.phase, end.phase, second.phase) == ("start", "end", "start")
    assert (start.event, len(start.vector)) == (end.event, 10)
    assert second.event != start.event
    await house.close()
