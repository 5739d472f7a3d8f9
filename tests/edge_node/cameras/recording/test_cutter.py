"""Clips out of real streams: the camera's own bytes, playable by themselves, one stream each."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_node.cameras.recording.clip import Clip
from edge_node.cameras.recording.config import Limits, RecordingConfig
from edge_node.cameras.recording.cutter import Cutter, Wanted
from edge_node.cameras.recording.library import Library, Listed
from edge_node.cameras.recording.metrics import RecordingCounts
from edge_node.cameras.recording.ring import Ring
from edge_node.cameras.recording.shelf import Shelf
from runtime.links.process.disk import REAL_DISK, Disk
from tests.edge_node.cameras.recording.footage import (
    H264,
    H264_ANNEX_B,
    HEVC,
    HEVC_ANNEX_B,
    KINDS,
    NOW_S,
    RATE,
    Camera,
    Change,
    base_of,
    film,
    frames,
    lengths_to_units,
    packets,
    units,
)

GOP_S = 1.0


class Set:
    """A camera, its ring, what cuts clips out of it and the directory that they come to. Time runs as pictures come."""

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk = REAL_DISK,
        change: Change = lambda packet, number: None,
        hold_s: float = 10.0,
        ring_bytes: int = 1 << 26,
        longest_s: float = 60.0,
        **config: Any,
    ) -> None:
        self.directory = directory / "clips"
        self.ring = Ring("yard", hold_s=hold_s, max_bytes=ring_bytes)
        self.camera = Camera(self.ring, change=change)
        self.counts = RecordingCounts()
        self.troubles: list[str] = []
        config.setdefault("reserve_bytes", 0)
        self.shelf = Shelf(self.directory, RecordingConfig(**config), {}, disk=disk, clock=self.clock)
        self.shelf.load()
        limits = Limits(on=True, pre_s=1.0, post_s=1.0, longest_s=longest_s, ring_bytes=ring_bytes)
        self.cutter = Cutter("yard", self.ring, limits, self.shelf, self.counts, self.troubles.append, self.clock)
        self.waited_s = 0.0

    def clock(self) -> float:
        return self.camera.now_s - NOW_S + self.waited_s if hasattr(self, "waited_s") else 0.0

    def want(self, event: str = "e1", *, at_s: float, pre_s: float = 1.0, post_s: float = 1.0) -> None:
        """`at_s` after the camera's first picture."""
        self.cutter.take(Wanted(event, NOW_S + at_s, pre_s, post_s))

    def silence(self, seconds: float) -> None:
        self.waited_s += seconds
        self.cutter.go_on()

    @property
    def clips(self) -> list[Listed]:
        """The oldest first."""
        return list(reversed(Library(self.shelf).list().clips))

    def path(self, listed: Listed) -> Path:
        return self.directory / f"{listed.id}.mp4"


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_is_the_cameras_own_pictures_from_a_keyframe_on(tmp_path: Path, kind: str) -> None:
    source = film(tmp_path / "source", KINDS[kind], seconds=6)
    on = Set(tmp_path)
    on.camera.play(source)
    on.want(at_s=3.4)
    on.cutter.go_on()
    (listed,) = on.clips
    path, clip = on.path(listed), listed.clip
    made, sent = packets(path), packets(source)
    assert made[0].key
    assert made[0].pts == 0
    _assert_same_bytes(kind, made, sent)
    times = [packet.dts for packet in made if packet.dts is not None]
    assert times == sorted(set(times))
    # FFmpeg takes it for an oddity that an open group of H.264 does not begin anew.
    shown = frames(path, strict=kind != "h264-open")
    assert len(shown) == len(made) == clip.pictures
    _assert_same_pictures(shown, frames(source))
    assert shown[0].pts == 0
    assert shown[0].key_frame
    assert 2.0 <= clip.seconds <= 2.0 + GOP_S + 4 / RATE
    assert clip.seconds == pytest.approx(_seconds(path), abs=1.5 / RATE)
    assert (clip.width, clip.height) == (160, 120)
    assert clip.codec == kind.partition("-")[0]


def _assert_same_pictures(shown: list[av.VideoFrame], sent: list[av.VideoFrame]) -> None:
    """An unbroken run of what the camera sent, to the last bit."""
    own, source = ([frame.to_ndarray(format="rgb24").tobytes() for frame in each] for each in (shown, sent))
    begin = source.index(own[0])
    missing = [frame for frame in own if frame not in set(source)]
    assert missing == []
    assert own[: len(own) - 4] == source[begin : begin + len(own) - 4]


def _assert_same_bytes(kind: str, made: list[Any], sent: list[Any]) -> None:
    """Start codes become lengths, and H.265's parameter sets stand in the header: nothing else is another byte."""
    own, source = [packet.data for packet in made], [packet.data for packet in sent]
    if not kind.endswith("annex-b"):
        assert own == [data for data in source if data in set(own)]
        return
    sets = range(32, 35)
    theirs = {unit for unit in units(source) if kind != "hevc-annex-b" or (unit[0] & 0x7E) >> 1 not in sets}
    mine = lengths_to_units(own)
    assert mine
    assert [unit for unit in mine if unit not in theirs] == []


def _seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        return float(stream.duration * stream.time_base)


def test_what_stands_beside_a_clip_is_true(tmp_path: Path) -> None:
    on = Set(tmp_path)
    on.camera.play(film(tmp_path / "source", seconds=6))
    on.want("track/7 ü", at_s=2.0)
    on.cutter.go_on()
    (listed,) = on.clips
    assert listed.id == "yard/2027-01-15/080001-track_7_"
    told = json.loads((on.directory / f"{listed.id}.json").read_bytes())
    video = on.path(listed).read_bytes()
    assert told["events"] == ["track/7 ü"]
    assert told["sha256"] == hashlib.sha256(video).hexdigest()
    assert told["bytes"] == len(video)
    assert told["from_s"] == NOW_S + 1.0
    assert told["to_s"] == pytest.approx(NOW_S + 3.0, abs=0.1)
    assert told["cut_short"] == ""
    assert on.counts.clips == 1
    assert on.counts.bytes == len(video)
    assert list((on.directory / ".writing").iterdir()) == []


def test_a_clip_grows_while_its_pictures_come_and_may_be_longer_than_the_ring(tmp_path: Path) -> None:
    source = film(tmp_path / "source", seconds=12)
    on = Set(tmp_path, hold_s=1.0)
    for at_s in on.camera.playing(source):
        if at_s == NOW_S + 2.0:
            on.want(at_s=2.0, post_s=8.0)
        on.cutter.go_on()
    (listed,) = on.clips
    assert listed.clip.seconds == pytest.approx(9.0, abs=0.2)
    assert len(frames(on.path(listed))) == listed.clip.pictures == 225


def test_events_whose_times_touch_share_a_clip_and_others_do_not(tmp_path: Path) -> None:
    on = Set(tmp_path, hold_s=30)
    wanted = {50: ("a", 2.0), 70: ("b", 2.8), 100: ("c", 4.0), 250: ("d", 10.0)}
    for number, _ in enumerate(on.camera.playing(film(tmp_path / "source", seconds=14))):
        if number in wanted:
            event, at_s = wanted[number]
            on.want(event, at_s=at_s)
        on.cutter.go_on()
    assert [listed.clip.events for listed in on.clips] == [("a", "b", "c"), ("d",)]
    assert on.clips[0].clip.seconds == pytest.approx(4.0, abs=0.1)


def test_an_event_told_late_gets_a_clip_of_its_own_time(tmp_path: Path) -> None:
    on = Set(tmp_path, hold_s=30)
    on.camera.play(film(tmp_path / "source", seconds=14))
    on.want("now", at_s=12.0, post_s=5.0)
    on.cutter.go_on()
    on.want("before", at_s=3.0)
    on.cutter.go_on()
    (listed,) = on.clips
    assert listed.clip.events == ("before",)
    assert listed.clip.from_s == NOW_S + 2.0
    on.silence(60)
    assert [each.clip.events for each in on.clips] == [("before",), ("now",)]


def test_what_never_ends_goes_on_in_another_clip_that_begins_where_the_first_ends(tmp_path: Path) -> None:
    on = Set(tmp_path, longest_s=4.0)
    for number, _ in enumerate(on.camera.playing(film(tmp_path / "source", seconds=14))):
        if 50 <= number <= 250 and number % 25 == 0:
            on.want(f"e{number}", at_s=number / RATE)
        on.cutter.go_on()
    on.silence(60)
    clips = [listed.clip for listed in on.clips]
    assert len(clips) >= 3
    for before, after in itertools.pairwise(clips):
        assert before.seconds <= 4.0 + GOP_S
        assert after.from_s <= before.to_s + 1 / RATE
    assert clips[0].from_s == NOW_S + 1.0
    assert clips[-1].to_s == pytest.approx(NOW_S + 11.0, abs=0.1)
    assert {event for clip in clips for event in clip.events} == {f"e{number}" for number in range(50, 251, 25)}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("long") / "source", seconds=14, size=(64, 48))


@settings(max_examples=40)
@given(
    events=st.lists(st.tuples(st.integers(0, 349), st.integers(0, 40)), min_size=1, max_size=8),
    every=st.sampled_from([1, 10, 40]),
    post_s=st.sampled_from([0.1, 1.0, 6.0]),
)
def test_whatever_happens_when_every_event_is_in_clips_from_before_it_to_after(
    long: Path, events: list[tuple[int, int]], every: int, post_s: float
) -> None:
    """Events at some pictures, told some pictures later; clips of at most 4 s, written every so often."""
    with tempfile.TemporaryDirectory() as directory:
        on = Set(Path(directory), hold_s=30, longest_s=4.0)
        for number, _ in enumerate(on.camera.playing(long)):
            for event, (at, late) in enumerate(events):
                if number == min(at + late, 350):
                    on.want(f"e{event}", at_s=at / RATE, post_s=post_s)
            if number % every == 0:
                on.cutter.go_on()
        on.silence(60)
        on.cutter.stop("that is all")
        assert sum(on.counts.dropped.values()) == 0
        for event, (at, _) in enumerate(events):
            own = [listed.clip for listed in on.clips if f"e{event}" in listed.clip.events]
            assert_covered(own, at / RATE, min(14.0, at / RATE + post_s))
            assert_covered([listed.clip for listed in on.clips], max(0, at / RATE - 1.0), at / RATE)


def assert_covered(clips: list[Clip], begin_s: float, end_s: float) -> None:
    reached = begin_s
    for clip in sorted(clips, key=lambda each: each.from_s):
        assert clip.seconds <= 4.0 + 1 / RATE
        if clip.from_s - NOW_S <= reached + 1 / RATE:
            reached = max(reached, clip.to_s - NOW_S)
    assert reached >= end_s - 3 / RATE


def test_a_stream_that_breaks_off_leaves_one_clip_of_each_side(tmp_path: Path) -> None:
    small, large = film(tmp_path / "a", seconds=3), film(tmp_path / "b", HEVC, seconds=4, size=(320, 240))
    on = Set(tmp_path)
    on.camera.play(small)
    on.want(at_s=2.8, post_s=3.0)
    on.camera.play(large, step=on.cutter.go_on)
    before, after = on.clips
    assert (before.clip.codec, before.clip.width) == ("h264", 160)
    assert (after.clip.codec, after.clip.width) == ("hevc", 320)
    assert before.clip.cut_short == "the stream ended"
    assert after.clip.cut_short == ""
    assert before.clip.events == after.clip.events == ("e1",)
    assert before.clip.seconds + after.clip.seconds == pytest.approx(4.8, abs=0.1)
    for listed in (before, after):
        assert len(frames(on.path(listed))) == listed.clip.pictures


@pytest.mark.parametrize("kind", [H264_ANNEX_B, HEVC_ANNEX_B], ids=["h264", "hevc"])
def test_a_camera_that_changes_its_size_within_a_stream_begins_another_clip(
    tmp_path: Path, kind: tuple[str, dict[str, str], str]
) -> None:
    """As over RTSP: the address stays, nothing is opened again, and the keyframes bring other parameter sets."""
    small = film(tmp_path / "a", kind, seconds=3)
    large = film(tmp_path / "b", kind, seconds=4, size=(320, 240))
    both = tmp_path / "both"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    on = Set(tmp_path)
    for number, _ in enumerate(on.camera.playing(both)):
        if number == 60:
            on.want(at_s=2.0, post_s=3.0)
        on.cutter.go_on()
    on.silence(60)
    sizes = [(listed.clip.width, listed.clip.height) for listed in on.clips]
    assert sizes == [(160, 120), (320, 240)]
    for listed, size in zip(on.clips, sizes, strict=True):
        shown = frames(on.path(listed))
        assert {(frame.width, frame.height) for frame in shown} == {size}
        assert len(shown) == listed.clip.pictures


def test_a_camera_that_falls_silent_ends_its_clip(tmp_path: Path) -> None:
    on = Set(tmp_path)
    on.camera.play(film(tmp_path / "source"))
    on.want(at_s=3.9, post_s=5.0)
    on.cutter.go_on()
    on.silence(5)
    assert on.clips == []
    on.silence(10)
    (listed,) = on.clips
    assert listed.clip.cut_short == "the camera fell silent"
    assert len(frames(on.path(listed))) == listed.clip.pictures


def test_a_stop_ends_clips_where_they_are(tmp_path: Path) -> None:
    on = Set(tmp_path)
    on.camera.play(film(tmp_path / "source"))
    on.want(at_s=3.9, post_s=5.0)
    on.cutter.go_on()
    on.cutter.stop("the node was stopped")
    (listed,) = on.clips
    assert listed.clip.cut_short == "the node was stopped"
    assert len(frames(on.path(listed))) == listed.clip.pictures > 0


def test_what_the_ring_has_lost_is_counted(tmp_path: Path) -> None:
    on = Set(tmp_path, hold_s=1.0)
    on.want(at_s=0.0)
    assert on.counts.dropped == {"gone": 1}
    on.camera.play(film(tmp_path / "source", seconds=10))
    on.want(at_s=1.0)
    on.cutter.go_on()
    assert on.counts.dropped == {"gone": 2}
    assert on.clips == []


def test_a_clip_whose_pictures_went_before_they_were_written_is_none(tmp_path: Path) -> None:
    on = Set(tmp_path, hold_s=1.0)
    source = film(tmp_path / "source", seconds=10)
    for number, _ in enumerate(on.camera.playing(source)):
        if number == 50:
            on.want(at_s=2.0)
    on.cutter.go_on()
    assert on.clips == []
    assert on.counts.dropped == {"gone": 1}
    assert list((on.directory / ".writing").iterdir()) == []


def test_a_disk_that_is_slower_than_the_camera_ends_the_clip_with_what_it_has(tmp_path: Path) -> None:
    on = Set(tmp_path, hold_s=1.0)
    source = film(tmp_path / "source", seconds=10)
    for number, _ in enumerate(on.camera.playing(source)):
        if number == 50:
            on.want(at_s=2.0, post_s=7.0)
            on.cutter.go_on()
    on.cutter.go_on()
    (listed,) = on.clips
    assert listed.clip.cut_short == "the disk was slower than the camera"
    assert len(frames(on.path(listed))) == listed.clip.pictures == 26
    assert on.counts.cut_short == 1


def _no_times(packet: av.Packet[VideoStream], number: int) -> None:
    packet.pts = packet.dts = None


def _no_decoding_times(packet: av.Packet[VideoStream], number: int) -> None:
    packet.dts = None


def _backwards(packet: av.Packet[VideoStream], number: int) -> None:
    if number >= 40 and packet.dts is not None and packet.pts is not None:
        packet.dts, packet.pts = packet.dts - 1_000_000, packet.pts - 1_000_000


def _far_ahead(packet: av.Packet[VideoStream], number: int) -> None:
    if number >= 40 and packet.dts is not None and packet.pts is not None:
        packet.dts, packet.pts = packet.dts + (1 << 40), packet.pts + (1 << 40)


def _standing(packet: av.Packet[VideoStream], number: int) -> None:
    packet.pts = packet.dts = 0


@pytest.mark.parametrize("change", [_no_times, _no_decoding_times, _backwards, _far_ahead, _standing])
@pytest.mark.parametrize("kind", ["h264", "mjpeg"])
def test_times_that_a_camera_gets_wrong_are_put_right(tmp_path: Path, kind: str, change: Change) -> None:
    on = Set(tmp_path, change=change)
    on.camera.play(film(tmp_path / "source", KINDS[kind], seconds=6))
    on.want(at_s=3.0)
    on.cutter.go_on()
    (listed,) = on.clips
    times = [packet.dts for packet in packets(on.path(listed)) if packet.dts is not None]
    assert times == sorted(set(times))
    assert len(frames(on.path(listed))) == listed.clip.pictures
    assert listed.clip.seconds == pytest.approx(2.0, abs=GOP_S + 0.2)


@pytest.mark.parametrize("leap_s", [-3600.0, 3600.0, 86_400 * 365 * 50.0])
def test_a_clock_that_is_set_while_pictures_come_costs_no_clip(tmp_path: Path, leap_s: float) -> None:
    """The first half of the stream has the one time, the second the other: an event right after still has a clip."""
    source = film(tmp_path / "source", seconds=6)
    on = Set(tmp_path)
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        on.ring.begin(stream)
        for number, packet in enumerate(container.demux(stream)):
            on.ring.put(packet, NOW_S + number / RATE + (leap_s if number >= 75 else 0.0))
    on.want("after", at_s=3.2 + leap_s)
    on.cutter.go_on()
    (listed,) = on.clips
    assert listed.clip.seconds == pytest.approx(2.2, abs=0.1)
    assert len(frames(on.path(listed))) == listed.clip.pictures


def test_two_clips_of_one_second_do_not_take_each_others_place(tmp_path: Path) -> None:
    on = Set(tmp_path)
    on.camera.play(film(tmp_path / "source", seconds=6))
    for _ in range(3):
        on.want(at_s=3.0, pre_s=0.2, post_s=0.2)
        on.cutter.go_on()
    assert [listed.id.rpartition("/")[2] for listed in on.clips] == ["080002-e1", "080002-e1-2", "080002-e1-3"]


def test_what_cannot_be_recorded_as_it_is_is_refused_once_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on = Set(tmp_path)
    raw = film(tmp_path / "raw", ("rawvideo", {}, "matroska"), seconds=0.4)
    for _ in range(3):
        on.camera.play(raw)
    assert "rawvideo" in on.ring.refused
    assert len(caplog.records) == 1
    on.want(at_s=0.0)
    assert on.counts.dropped == {"codec": 1}
    on.camera.play(film(tmp_path / "source"))
    assert on.ring.refused == ""
    on.want(at_s=2.0)
    on.cutter.go_on()
    assert len(on.clips) == 1


def test_the_times_of_a_clip_are_those_of_the_stream_to_the_tick(tmp_path: Path) -> None:
    source = film(tmp_path / "source", H264, seconds=6)
    on = Set(tmp_path)
    on.camera.play(source)
    on.want(at_s=3.0)
    on.cutter.go_on()
    path = on.path(on.clips[0])
    shown = sorted(frame.pts * base_of(path) for frame in frames(path) if frame.pts is not None)
    assert shown == [Fraction(number, RATE) for number in range(len(shown))]
