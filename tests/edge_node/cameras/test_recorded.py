"""Which camera fills which ring, and what is refused."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from contracts.camera_events import RuleEvent
from contracts.errors import FoothillError
from edge_node.cameras.config import CameraConfig
from edge_node.cameras.feed import Feed
from edge_node.cameras.recorded import Recorded
from edge_node.cameras.recording.config import RecordingConfig
from edge_node.cameras.recording.occasions import clip_path
from edge_node.cameras.recording.part import RecordingPart
from edge_node.config import Config
from tests.edge_node.cameras.house import House, pattern

TOO_LONG = {"url": "pattern:", "recording": {"post_s": 500.0}}


def recorded(directory: Path, feed: Feed) -> Recorded:
    return Recorded(RecordingPart(directory, RecordingConfig(on=True)), feed, CollectorRegistry())


def camera(name: str, **recording: Any) -> CameraConfig:
    return msgspec.convert({"name": name, "url": "a.mp4", "recording": recording}, CameraConfig)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"recording": {"post_s": 500.0}}, "camera yard: recording: pre_s 5 and post_s 500 together"),
        ({"recording": {"events": ["tracks"]}}, "tracks"),
        ({"recording": {"on": 1}}, "Expected `bool | null`"),
    ],
)
def test_tables_that_make_no_sense_together_are_refused_in_words(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(told)):
        msgspec.convert({"cameras": [{"name": "yard", "url": "pattern:", **keys}]}, Config)


async def test_over_http_it_is_refused_as_well_and_not_kept(house: House, tmp_path: Path) -> None:
    on = recorded(tmp_path, house.feed)
    await house.listen((), check=on.check)
    with pytest.raises(FoothillError) as refused:
        await house.roster.put(msgspec.convert({"name": "yard", **TOO_LONG}, CameraConfig))
    assert refused.value.code == "bad_request"
    assert "raise longest_s" in refused.value.message
    assert house.cameras.there == {}


def test_one_that_was_kept_from_before_is_watched_and_not_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on = recorded(tmp_path, Feed("fra", 1))
    assert on.ring_of(camera("yard", post_s=500.0)) is None
    assert "camera yard is not recorded" in caplog.text
    assert on.ring_of(camera("gate", on=False)) is None
    assert not on.part.begun
    assert not on.part.directory.exists()


def test_a_camera_fills_one_ring_at_a_time_until_it_is_taken_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    feed = Feed("fra", 1)
    on = recorded(tmp_path, feed)
    first = on.ring_of(camera("yard"))
    assert on.part.begun
    assert on.ring_of(camera("yard")) is on.part.rings["yard"] is not first
    message = feed.say(RuleEvent, "yard", 1.0, event="r", phase="start", rule="x")
    assert message.clip == clip_path("yard", "r")
    on.part.remove("yard")
    assert feed.say(RuleEvent, "yard", 1.0, event="s", phase="start", rule="x").clip == ""
    on.part.close()


async def test_taking_a_camera_away_ends_its_recording(house: House, tmp_path: Path) -> None:
    on = recorded(tmp_path, house.feed)
    config = msgspec.structs.replace(pattern("door"), recording=camera("door").recording)
    await house.cameras.put(config)
    assert on.ring_of(config) is not None
    await house.cameras.remove("door")
    assert on.part.rings == {}
    on.part.close()
