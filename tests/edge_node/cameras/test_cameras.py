"""Cameras in a node: streams over real sockets, through a gate and a real model, to what is said of them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from pathlib import Path

import pytest

from benchmarks.rtsp.server import RtspServer
from contracts.camera_events import CountsMessage, PictureEvent, StateMessage, TrackEvent, decode
from contracts.errors import FoothillError
from edge_node.cameras.config import CameraConfig
from tests.edge_node.cameras.house import EPOCH, SEVEN, House, pattern


def stream(server: RtspServer, name: str, **keys: object) -> CameraConfig:
    told = {"url": f"{server.url}/h264", "decoder": "software", "stall_s": 1.0, "reconnect_s": 0.5, **keys}
    return pattern(name, **told)


async def test_a_picture_becomes_an_event_that_begins_and_ends(house: House) -> None:
    await house.serve(bias=SEVEN)
    await house.cameras.put(pattern())
    await house.until(lambda: bool(house.messages(PictureEvent, "door")))
    await house.cameras.remove("door")
    begun, ended = house.messages(PictureEvent, "door")
    assert (begun.phase, ended.phase, begun.label, begun.event == ended.event) == ("start", "end", "7", True)
    assert begun.event == f"door-{EPOCH:x}-1"
    assert begun.score > 0.99
    assert begun.verdict.confidence is not None
    assert 0.0 < ended.at_s - begun.began_at_s < 10.0
    assert house.states("door") == ["starting", "live", "stopped"]
    sequences = [decode(said.body).sequence for said in house.said]
    assert sequences == list(range(1, len(sequences) + 1))
    assert house.feed.standing == []


async def test_another_bundle_begins_anew_what_it_sees(house: House) -> None:
    await house.serve(bias=SEVEN)
    await house.cameras.put(pattern(motion={"enabled": False}))
    await house.until(lambda: len(house.messages(PictureEvent, "door")) == 1)
    await house.serve(bias=SEVEN[5:] + SEVEN[:5])
    await house.until(lambda: len(house.messages(PictureEvent, "door")) == 3)
    told = [(message.phase, message.label) for message in house.messages(PictureEvent, "door")]
    assert told == [("start", "7"), ("end", "7"), ("start", "2")]


async def test_a_model_that_is_not_there_costs_pictures_and_says_so_once(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await house.cameras.put(pattern())
    camera = house.cameras.get("door")
    await house.until(lambda: camera.figures.dropped["no-model"] > 5)
    await house.serve(bias=SEVEN)
    await house.until(lambda: camera.figures.inferred > 0)
    assert caplog.text.count("are not seen now") == 1
    assert caplog.text.count("are seen again") == 1


async def test_what_stands_still_is_gated_and_every_picture_is_counted(house: House, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    await house.serve(bias=SEVEN)
    noise = np.random.default_rng(1)
    for number in range(30):
        still = np.clip(100 + noise.normal(0, 3, (240, 320, 3)), 0, 255).astype(np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number:03}.png"), still)
    await asyncio.sleep(0.6)
    await house.cameras.put(
        pattern(
            url=str(tmp_path / "pictures"), pace="every-frame", interval_s=0.1, motion={"hold_s": 0.0, "refresh_s": 0.0}
        )
    )
    camera = house.cameras.get("door")
    await house.until(lambda: camera.figures.gated.total() == 30)
    assert camera.figures.gated == {"moved": 1, "still": 29}
    assert (camera.figures.inferred, camera.figures.given_way) == (1, 0)
    assert camera.reader.seen.passed == 30


@pytest.mark.integration
async def test_one_camera_that_fails_does_not_hurt_another(
    house: House, rtsp: RtspServer, other_rtsp: RtspServer
) -> None:
    await house.serve(bias=SEVEN)
    await house.cameras.become([stream(rtsp, "door"), stream(other_rtsp, "yard")])
    door, yard = house.cameras.get("door"), house.cameras.get("yard")
    await house.until(lambda: min(door.figures.inferred, yard.figures.inferred) > 0)
    for what in ("stall", "corrupt", "kick"):
        rtsp.do("/h264", what, count=20)
        before, attempts = yard.reader.seen.decoded, door.reader.seen.attempts
        await house.until(lambda: yard.reader.seen.decoded > before + 40)  # noqa: B023
        if what == "stall":
            await house.until(lambda: door.reader.seen.attempts > attempts)  # noqa: B023
            rtsp.do("/h264", "go")
    await house.until(lambda: door.state.state == "live")
    assert house.states("yard") == ["starting", "live"]
    assert yard.reader.seen.attempts == 1
    assert "reconnecting" in house.states("door")
    assert "nothing came from it for 1 s" in {message.why for message in house.messages(StateMessage, "door")}


@pytest.mark.integration
async def test_a_camera_is_added_changed_and_taken_away_while_the_others_go_on(house: House, rtsp: RtspServer) -> None:
    await house.serve(bias=SEVEN)
    await house.cameras.become([stream(rtsp, "door"), pattern("yard")])
    await house.until(lambda: {camera.state.state for camera in house.cameras.there.values()} == {"live"})
    yard = house.cameras.get("yard")
    await house.cameras.become([stream(rtsp, "door", max_fps=2.0), pattern("yard")])
    assert house.cameras.get("yard") is yard
    door = house.cameras.get("door")
    await house.until(lambda: door.state.state == "live")
    assert door.config.max_fps == 2.0
    await house.cameras.become([pattern("yard")])
    assert list(house.cameras.there) == ["yard"]
    assert house.states("yard") == ["starting", "live"]
    with pytest.raises(FoothillError, match="There are: yard"):
        house.cameras.get("door")


async def test_a_password_that_cannot_be_had_is_told_and_no_secret_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOOR_PASSWORD", raising=False)
    await house.cameras.put(
        pattern(url="rtsp://127.0.0.1:9/a?token=s3cret", user="admin", password_env="DOOR_PASSWORD")
    )
    await house.until(lambda: house.cameras.get("door").state.state == "denied")
    assert "DOOR_PASSWORD is not set" in house.messages(StateMessage, "door")[-1].why
    assert not any(b"s3cret" in said.body for said in house.said)


@pytest.mark.integration
async def test_a_detectors_blocks_become_tracks_that_walk_through_a_zone(house: House, rtsp: RtspServer) -> None:
    """Of the clip's three blocks two are bright enough; the clip begins anew every two seconds."""
    await house.serve_detector()
    zone = {"name": "left", "polygon": [[0, 0], [0.3, 0], [0.3, 1], [0, 1]], "dwell_s": 0.1}
    await house.cameras.put(stream(rtsp, "door", model="things", zones=[zone], update_every_s=0.3))
    await house.until(lambda: {"start", "update", "end"} <= {m.phase for m in house.messages(TrackEvent, "door")})
    await house.until(lambda: bool(house.messages(CountsMessage, "door")))
    await house.cameras.remove("door")
    told = house.messages(TrackEvent, "door")
    assert {message.label for message in told} == {"block"}
    assert all(message.box[2] - message.box[0] == pytest.approx(24, abs=8) for message in told)
    for track in {message.track for message in told}:
        phases = [message.phase for message in told if message.track == track]
        assert (phases[0], phases[-1], phases.count("start"), phases.count("end")) == ("start", "end", 1, 1)
    assert len({message.event for message in told}) == len({message.track for message in told})


async def test_cameras_that_do_not_answer_hold_nobody_up(house: House) -> None:
    """Neither each other, nor who changes them, nor the end."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/a"
        dead = [pattern(f"dead-{number}", url=url, open_timeout_s=20.0, stall_s=20.0) for number in range(20)]
        await house.cameras.become([*dead, pattern("door")])
        await house.until(lambda: house.cameras.get("door").state.state == "live")
        began_s = time.monotonic()
        await house.cameras.become([pattern("door", max_fps=5.0)])
        await house.cameras.close()
        assert time.monotonic() - began_s < 5.0
