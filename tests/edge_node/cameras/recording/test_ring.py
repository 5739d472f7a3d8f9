"""The ring: bounded whatever comes, whole groups, readable while it is filled."""

from __future__ import annotations

import gc
import resource
import threading
import time
from pathlib import Path

import av
import pytest
from av.video.stream import VideoStream

from edge_node.cameras.recording.ring import MOST_SEGMENTS, Ring
from tests.edge_node.cameras.recording.footage import MJPEG, NOW_S, RATE, Camera, film, packets


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("footage") / "source", seconds=8)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_it_keeps_as_long_as_it_should_and_at_most_a_group_more(footage: Path) -> None:
    ring = Ring("yard", hold_s=2.0, max_bytes=1 << 30)
    for number, _ in enumerate(Camera(ring).playing(footage)):
        figures = ring.figures()
        assert figures.seconds <= 3.0 + 1 / RATE
        if number > 3 * RATE:
            assert figures.seconds >= 2.0 - 2 / RATE


def test_it_is_never_larger_than_it_may_be(footage: Path) -> None:
    most = 40_000
    ring = Ring("yard", hold_s=60.0, max_bytes=most)
    largest = 0
    for _ in Camera(ring).playing(footage):
        assert ring.figures().bytes <= most
        largest = max(largest, ring.figures().bytes)
    assert largest > most // 2


def test_a_stream_without_another_keyframe_costs_no_more_and_is_taken_up_at_the_next(footage: Path) -> None:
    def one_keyframe(packet: av.Packet[VideoStream], number: int) -> None:
        packet.is_keyframe = number in (0, 150)

    ring = Ring("yard", hold_s=1.0, max_bytes=30_000)
    seen = []
    for number, _ in enumerate(Camera(ring, change=one_keyframe).playing(footage)):
        assert ring.figures().bytes <= 30_000
        seen.append((number, ring.figures().groups))
    assert {groups for number, groups in seen if 120 < number < 150} == {0}
    assert ring.figures().lost > 60
    assert dict(seen)[155] == 1


def test_before_the_first_keyframe_nothing_is_kept(footage: Path) -> None:
    def late(packet: av.Packet[VideoStream], number: int) -> None:
        packet.is_keyframe = packet.is_keyframe and number > 20

    ring = Ring("yard", hold_s=9.0, max_bytes=1 << 30)
    Camera(ring, change=late).play(footage)
    assert ring.figures().lost == RATE
    start = ring.mark(NOW_S)
    assert start is not None
    assert start.early_s == pytest.approx(1.0)


def test_what_is_read_is_what_was_sent_and_nothing_twice(footage: Path) -> None:
    ring = Ring("yard", hold_s=60.0, max_bytes=1 << 30)
    camera = Camera(ring)
    got: list[bytes] = []
    for number, _ in enumerate(camera.playing(footage)):
        if number % 7 == 0:
            mark = ring.mark(camera.now_s)
            assert mark is not None
            got += [entry.picture.data for entry in ring.read(mark.segment, len(got)).entries]
    assert mark is not None
    got += [entry.picture.data for entry in ring.read(mark.segment, len(got)).entries]
    assert got == [packet.data for packet in packets(footage)]


def test_a_reader_that_is_too_slow_is_told(footage: Path) -> None:
    ring = Ring("yard", hold_s=1.0, max_bytes=1 << 30)
    camera = Camera(ring)
    playing = camera.playing(footage)
    next(playing)
    mark = ring.mark(camera.now_s)
    assert mark is not None
    assert not ring.read(mark.segment, 1).gone
    for _ in playing:
        pass
    assert ring.read(mark.segment, 1).gone


def test_a_hundred_reconnects_leave_no_more_than_a_few_streams(tmp_path: Path) -> None:
    """A camera that comes back for one picture at a time: seconds alone would bound nothing."""
    source = film(tmp_path / "source", seconds=0.2)
    ring = Ring("yard", hold_s=10.0, max_bytes=1 << 30)
    camera = Camera(ring)
    for _ in range(20):
        camera.play(source)
    gc.collect()
    before = resident_bytes()
    for _ in range(100):
        camera.play(source)
        assert ring.figures().groups <= MOST_SEGMENTS
    gc.collect()
    assert resident_bytes() - before < 4 << 20


def test_the_moment_of_an_event_is_found_in_the_stream_that_was_on_then(footage: Path, tmp_path: Path) -> None:
    other = film(tmp_path / "other", MJPEG, seconds=2)
    ring = Ring("yard", hold_s=60.0, max_bytes=1 << 30)
    camera = Camera(ring)
    camera.play(footage)
    first = ring.mark(camera.now_s)
    camera.play(other)
    last = ring.mark(camera.now_s)
    assert first is not None
    assert last is not None
    assert (first.segment.parameters.codec, last.segment.parameters.codec) == ("h264", "mjpeg")
    between = ring.mark(NOW_S + 4.0)
    assert between is not None
    assert between.segment is first.segment
    assert first.segment.seconds(between.dts) == pytest.approx(4.0, abs=0.05)
    assert ring.after(first.segment) is last.segment
    assert ring.after(last.segment) is None


def test_readers_and_the_camera_do_not_hurt_each_other(footage: Path) -> None:
    """One thread fills, three read all the time: entries stay in order, and nobody raises."""
    ring = Ring("yard", hold_s=1.0, max_bytes=60_000)
    camera = Camera(ring)
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                mark = ring.mark(camera.now_s)
                if mark is not None:
                    entries = ring.read(mark.segment, 0).entries
                    numbers = [entry.number for entry in entries]
                    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
                    assert not entries or entries[0].picture.key
                assert ring.figures().bytes <= 60_000
        except BaseException as error:
            faults.append(error)
            raise

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        camera.play(footage)
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []
