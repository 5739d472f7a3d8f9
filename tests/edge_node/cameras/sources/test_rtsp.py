"""Streams from GStreamer's RTSP server, whole and broken."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.rtsp.server import Mount, RtspServer, serving
from edge_node.cameras.sources.address import parse
from edge_node.cameras.sources.opening import open_source
from edge_node.cameras.sources.shot import Shot
from edge_node.cameras.sources.source import Source
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Transport, Wishes
from tests.edge_node.cameras.conftest import CODECS, FPS, PASSWORD, USER

pytestmark = pytest.mark.integration

NOBODY = ("", "")
BRIEF = Wishes(open_timeout_s=5.0, stall_s=1.0, decoder="software")


@contextmanager
def opened(url: str, wishes: Wishes = BRIEF, login: tuple[str, str] = NOBODY) -> Iterator[tuple[Source, list[int]]]:
    """A source, and a mark for each corrupt piece."""
    corrupt: list[int] = []
    with closing(open_source(parse(url), login, wishes, corrupt=lambda: corrupt.append(1))) as source:
        yield source, corrupt


def some(source: Source, count: int) -> list[Shot]:
    return list(islice(source.shots(threading.Event()), count))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_every_codec_comes_over_either_transport_and_in_time(
    rtsp: RtspServer, codec: str, transport: Transport
) -> None:
    wishes = Wishes(transport=transport, open_timeout_s=5.0, stall_s=2.0, decoder="software")
    with opened(f"{rtsp.url}/{codec}", wishes) as (source, _):
        shots = some(source, 30)
        assert time.time() - shots[-1].at_s < 2.0
        assert source.facts == (codec, "")
    assert {shot.size for shot in shots} == {(320, 240)}
    assert [shot.number for shot in shots] == list(range(1, 31))
    passed_s = shots[-1].at_s - shots[0].at_s
    assert passed_s == pytest.approx(29 / FPS, rel=0.3)
    assert shots[-1].picture("bgr").shape == (240, 320, 3)
    assert shots[-1].luma().std() > 10


@pytest.mark.parametrize("digest", [False, True])
def test_a_user_and_a_password_are_shown_and_told_to_nobody(
    clips: Path,
    needs_gstreamer: None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    digest: bool,
) -> None:
    mount = Mount("/door", str(clips / "h264"), FPS, user=USER, password=PASSWORD, digest=digest)
    with serving([mount]) as server:
        for login in (NOBODY, (USER, "wr0ng-one")):
            with pytest.raises(Trouble) as raised:
                open_source(parse(f"{server.url}/door"), login, BRIEF, corrupt=lambda: None)
            assert raised.value.kind == "denied"
            assert "wr0ng-one" not in raised.value.why
        with opened(f"{server.url}/door", login=(USER, PASSWORD)) as (source, _):
            assert len(some(source, 3)) == 3
    told = caplog.text + "".join(capfd.readouterr())
    assert not any(secret in told for secret in (PASSWORD, "wr0ng-one", "pa%20ss"))


def fails(source: Source, when: Callable[[Shot], None]) -> Trouble:
    try:
        for shot in source.shots(threading.Event()):
            when(shot)
    except Trouble as trouble:
        return trouble
    raise AssertionError("it ended without a word")


def at(number: int, do: Callable[[], None]) -> Callable[[Shot], None]:
    return lambda shot: do() if shot.number == number else None


def test_a_stream_that_falls_silent_is_lost_though_its_connection_stays(rtsp: RtspServer) -> None:
    with opened(f"{rtsp.url}/h264") as (source, _):
        trouble = fails(source, at(5, lambda: rtsp.do("/h264", "stall")))
    assert (trouble.kind, trouble.why) == ("lost", "nothing came from it for 1 s")


@pytest.mark.parametrize("how", ["kicked", "killed"])
def test_a_stream_that_is_cut_is_lost(rtsp: RtspServer, how: str) -> None:
    with opened(f"{rtsp.url}/h264") as (source, _):
        trouble = fails(source, at(5, (lambda: rtsp.do("/h264", "kick")) if how == "kicked" else rtsp.end))
    assert trouble.kind == "lost"


def test_corrupt_packets_cost_their_pictures_and_no_others(rtsp: RtspServer) -> None:
    seen: list[Shot] = []
    with opened(f"{rtsp.url}/h264") as (source, corrupt):
        for shot in source.shots(threading.Event()):
            seen.append(shot)
            if shot.number == 10:
                rtsp.do("/h264", "corrupt", count=5)
            if shot.number == 60:
                break
    assert len(seen) == 60
    assert corrupt


def test_a_stream_that_changes_its_size_goes_on(rtsp: RtspServer, clips: Path) -> None:
    sizes: list[tuple[int, int]] = []
    with opened(f"{rtsp.url}/h264") as (source, _):
        for shot in source.shots(threading.Event()):
            sizes.append(shot.size)
            if shot.number == 10:
                rtsp.do("/h264", "switch", clip=str(clips / "wide"))
            if sizes[-1] == (480, 200):
                assert shot.picture("rgb").shape == (200, 480, 3)
                break
    assert sizes[0] == (320, 240)


def test_who_takes_connections_and_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        with pytest.raises(Trouble) as raised:
            open_source(
                parse(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/a"),
                NOBODY,
                Wishes(open_timeout_s=1.0, stall_s=1.0),
                corrupt=lambda: None,
            )
    assert raised.value.kind == "lost"
    assert time.monotonic() - began_s < 10.0


def test_nobody_there_and_nothing_there_are_told_apart(rtsp: RtspServer, unused_tcp_port: int) -> None:
    for url, told in (
        (f"rtsp://127.0.0.1:{unused_tcp_port}/a", "refuses connections"),
        (f"{rtsp.url}/absent", "correct the path"),
    ):
        with pytest.raises(Trouble, match=told) as raised:
            open_source(parse(url), NOBODY, BRIEF, corrupt=lambda: None)
        assert raised.value.kind == "lost"


def test_keyframes_alone_are_decoded_where_that_is_asked_for(rtsp: RtspServer) -> None:
    wishes = Wishes(open_timeout_s=5.0, stall_s=2.0, decoder="software", keyframes_only=True)
    with opened(f"{rtsp.url}/h264", wishes) as (source, _):
        shots = some(source, 4)
    assert shots[-1].at_s - shots[0].at_s == pytest.approx(3 * 10 / FPS, rel=0.3)


def test_hardware_that_is_not_there_is_told_where_it_was_asked_for(rtsp: RtspServer) -> None:
    with pytest.raises(Trouble, match="use auto or software"):
        open_source(parse(f"{rtsp.url}/h264"), NOBODY, Wishes(decoder="magic"), corrupt=lambda: None)
