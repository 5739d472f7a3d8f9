"""What cameras do that GStreamer's server never does, over real sockets."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from edge_node.cameras.sources.rtsp.description import Unfit
from edge_node.cameras.sources.rtsp.media import Came
from edge_node.cameras.sources.rtsp.session import Session
from edge_node.cameras.sources.trouble import Trouble
from edge_node.cameras.sources.wishes import Wishes
from tests.edge_node.cameras.sources.rtsp.odd_camera import OddCamera, interleaved, odd_camera, refusal
from tests.edge_node.cameras.sources.rtsp.packets import SOURCE, packets, rtp

WISHES = Wishes(open_timeout_s=2.0, stall_s=1.0)
KEY = bytes((0x65, 1, 2, 3))
THREE = [interleaved(data) for data in packets([[KEY]] * 3)]
NOBODY = ("", "")


@pytest.fixture
def camera() -> Iterator[OddCamera]:
    with odd_camera() as odd:
        yield odd


@contextmanager
def opened(camera: OddCamera, login: tuple[str, str] = NOBODY, wishes: Wishes = WISHES) -> Iterator[Session]:
    with closing(Session(camera.url, login, wishes, lambda: None)) as session:
        session.set_up()
        yield session


def seen(camera: OddCamera, count: int, login: tuple[str, str] = NOBODY, wishes: Wishes = WISHES) -> list[Came]:
    stopped, came = threading.Event(), []
    with opened(camera, login, wishes) as session:
        for picture in session.pictures(stopped):
            came.append(picture)
            if len(came) == count:
                break
    return came


def fails(camera: OddCamera, wishes: Wishes = WISHES) -> Trouble:
    with pytest.raises(Trouble) as raised:
        seen(camera, 1 << 30, wishes=wishes)
    return raised.value


def wait_for(what: Callable[[], object], seconds: float = 2.0) -> None:
    until_s = time.monotonic() + seconds
    while not what() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert what()


def sender_report(at_s: float, ticks: int) -> bytes:
    seconds, fraction = divmod(at_s + 2_208_988_800, 1)
    return struct.pack(">BBHIIIIII", 0x80, 200, 6, SOURCE, int(seconds), int(fraction * (1 << 32)), ticks, 3, 99)


def test_it_goes_the_usual_way_and_says_farewell(camera: OddCamera) -> None:
    camera.sends = THREE
    came = seen(camera, 3)
    assert [each.picture.data for each in came] == [b"\0\0\0\1" + KEY] * 3
    assert [each.stamp_s for each in came] == pytest.approx([0.0, 0.1, 0.2])
    assert camera.methods()[:4] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert [url for _, url, _ in camera.requests[:4]] == [camera.url, camera.url, f"{camera.url}/track1", camera.url]
    assert camera.requests[3][2]["session"] == "77"
    wait_for(lambda: camera.methods()[4:] == ["TEARDOWN"])


def test_pictures_that_come_before_its_yes_are_not_lost(camera: OddCamera) -> None:
    camera.early, camera.sends = THREE[:2], THREE[2:]
    assert [each.ticks for each in seen(camera, 3)] == [0, 9000, 18000]


def test_what_comes_byte_by_byte_is_put_together(camera: OddCamera) -> None:
    camera.sends, camera.dribbles = THREE, True
    assert len(seen(camera, 3)) == 3


def test_its_own_channels_are_listened_to_and_no_others(camera: OddCamera) -> None:
    camera.transport = "RTP/AVP/TCP;unicast;interleaved=4-5"
    data = list(packets([[KEY]] * 2))
    camera.sends = [
        interleaved(b"noise", 0),
        interleaved(data[0], 4),
        interleaved(b"noise", 5),
        interleaved(data[1], 4),
    ]
    assert len(seen(camera, 2)) == 2


def test_questions_of_the_camera_are_answered_and_break_nothing(camera: OddCamera) -> None:
    camera.sends = [THREE[0], b"\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 9\r\nContent-Length: 2\r\n\r\nhi", *THREE[1:]]
    assert len(seen(camera, 3)) == 3
    wait_for(lambda: camera.said)
    assert camera.said == ["RTSP/1.0 501 Not Implemented"]


@pytest.mark.parametrize(("public", "method"), [("PLAY", "OPTIONS"), ("PLAY, GET_PARAMETER", "GET_PARAMETER")])
def test_the_session_is_kept_alive_as_often_as_it_asks_for(camera: OddCamera, public: str, method: str) -> None:
    camera.public, camera.sends = public, THREE
    trouble = fails(camera, Wishes(open_timeout_s=2.0, stall_s=1.6))
    assert trouble.why == "nothing came from it for 1.6 s"
    assert method in camera.methods()[4:]


def test_a_question_for_a_password_in_between_is_answered_the_next_time(camera: OddCamera) -> None:
    asks = 'WWW-Authenticate: Digest realm="r", nonce="{}"'
    camera.answers = {
        "OPTIONS": [refusal(401, asks.format("one"))],
        "GET_PARAMETER": [refusal(401, asks.format("two"))],
    }
    camera.sends = THREE
    with opened(camera, ("u", "p"), Wishes(open_timeout_s=2.0, stall_s=2.6)) as session, pytest.raises(Trouble):
        list(session.pictures(threading.Event()))
    shown = [headers.get("authorization", "") for method, _, headers in camera.requests if method == "GET_PARAMETER"]
    assert len(shown) == 2
    assert 'nonce="one"' in shown[0]
    assert 'nonce="two"' in shown[1]


def test_the_cameras_clock_is_that_of_its_reports(camera: OddCamera) -> None:
    data = list(packets([[KEY]] * 3, first=65534))
    camera.sends = [interleaved(data[0]), interleaved(sender_report(1_800_000_000.25, 9000), 1), interleaved(data[1])]
    first, second = seen(camera, 2)
    assert first.began_s is None
    assert second.began_s == pytest.approx(1_800_000_000.15)
    assert second.stamp_s == pytest.approx(0.1)


def test_a_clock_that_goes_round_goes_on(camera: OddCamera) -> None:
    begin = (1 << 32) - 9000
    sent = [rtp(KEY, at, begin + 9000 * at, marker=True) for at in range(3)]
    camera.sends = [interleaved(data) for data in sent]
    assert [each.ticks for each in seen(camera, 3)] == [0, 9000, 18000]


def test_a_camera_that_begins_anew_in_the_middle_is_followed(camera: OddCamera) -> None:
    other = [rtp(KEY, 9, 77, marker=True, source=5), rtp(KEY, 10, 9077, marker=True, source=5)]
    camera.sends = [*THREE, *(interleaved(data) for data in other)]
    assert [each.ticks for each in seen(camera, 5)] == [0, 9000, 18000, 18000, 27000]


def test_what_has_come_is_reported(camera: OddCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_node.cameras.sources.rtsp.session.REPORT_S", 0.2)
    data = list(packets([[KEY]] * 4))
    camera.sends = [interleaved(data[0]), interleaved(sender_report(1_800_000_000.0, 0), 1), interleaved(data[3])]
    fails(camera, Wishes(open_timeout_s=2.0, stall_s=0.6))
    first, kind, words, _, about = struct.unpack_from(">BBHII", camera.packets[0])
    lost, highest = struct.unpack_from(">II", camera.packets[0], 12)
    assert (first, kind, words, about) == (0x81, 201, 7, SOURCE)
    assert lost == (256 * 2 // 4) << 24 | 2
    assert highest == 3


def test_its_farewell_is_the_end(camera: OddCamera) -> None:
    camera.sends = [*THREE, interleaved(struct.pack(">BBHI", 0x81, 203, 1, SOURCE), 1)]
    assert fails(camera).why == "the stream ended"


@pytest.mark.parametrize(
    ("method", "status", "kind", "why"),
    [
        ("DESCRIBE", 401, "denied", "user and password"),
        ("PLAY", 403, "denied", "user and password"),
        ("DESCRIBE", 404, "lost", "correct the path"),
        ("SETUP", 461, "lost", "set transport"),
        ("SETUP", 453, "lost", "close another one"),
        ("PLAY", 500, "lost", "status 500"),
    ],
)
def test_refusals_say_what_to_do(camera: OddCamera, method: str, status: int, kind: str, why: str) -> None:
    camera.answers = {method: [refusal(status)]}
    trouble = fails(camera)
    assert trouble.kind == kind
    assert why in trouble.why


def test_a_wrong_password_is_tried_once(camera: OddCamera) -> None:
    camera.answers = {"DESCRIBE": [refusal(401, 'WWW-Authenticate: Basic realm="r"')] * 3}
    with pytest.raises(Trouble) as raised:
        seen(camera, 1, ("u", "p"))
    assert raised.value.kind == "denied"
    assert camera.methods() == ["OPTIONS", "DESCRIBE", "DESCRIBE"]


def test_who_sends_its_callers_elsewhere_is_left_to_ffmpeg(camera: OddCamera) -> None:
    camera.answers = {"DESCRIBE": [refusal(301, "Location: rtsp://elsewhere/")]}
    with pytest.raises(Unfit):
        seen(camera, 1)


@pytest.mark.parametrize(
    ("transport", "asked", "why"),
    [
        ("RTP/AVP/TCP;interleaved=0-1", "udp", "set transport to tcp"),
        ("RTP/AVP;unicast", "tcp", "set transport to udp"),
    ],
)
def test_another_way_than_was_asked_for_is_told(camera: OddCamera, transport: str, asked: str, why: str) -> None:
    camera.transport = transport
    trouble = fails(camera, Wishes(transport="udp" if asked == "udp" else "tcp", open_timeout_s=2.0, stall_s=1.0))
    assert why in trouble.why


@pytest.mark.parametrize(
    "told",
    [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "\0\1\2\3",
        "ssh-2.0 me\r\n\r\n",
        "RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        "RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
        "RTSP/1.0 200 OK\r\nA: " + "a" * 70_000,
        "",
    ],
)
def test_who_speaks_something_else_is_given_up(camera: OddCamera, told: str) -> None:
    camera.answers = {"OPTIONS": [told]}
    trouble = fails(camera, Wishes(open_timeout_s=0.5, stall_s=0.5))
    assert trouble.kind == "lost"
    assert "does not" in trouble.why


@pytest.mark.parametrize("seed", range(20))
def test_noise_in_the_middle_is_an_end_and_no_defect(camera: OddCamera, seed: int) -> None:
    rng = random.Random(seed)
    noise = [rng.randbytes(rng.randrange(1, 400)) for _ in range(5)]
    camera.sends = [THREE[0], *(rng.choice((interleaved, bytes))(piece) for piece in noise), *THREE[1:]]
    trouble = fails(camera, Wishes(open_timeout_s=2.0, stall_s=0.3))
    assert trouble.kind == "lost"


def test_a_stop_is_seen_though_nothing_comes(camera: OddCamera) -> None:
    stopped = threading.Event()
    with opened(camera, wishes=Wishes(open_timeout_s=2.0, stall_s=60.0)) as session:
        threading.Timer(0.2, stopped.set).start()
        began_s = time.monotonic()
        assert list(session.pictures(stopped)) == []
    assert time.monotonic() - began_s < 2.0


def test_by_udp_only_the_camera_is_listened_to(camera: OddCamera) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        media.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.2", 0))
        camera.transport = f"RTP/AVP;unicast;server_port={media.getsockname()[1]}"
        with opened(camera, wishes=Wishes(transport="udp", open_timeout_s=2.0, stall_s=1.0)) as session:
            asked = next(headers["transport"] for method, _, headers in camera.requests if method == "SETUP")
            port = int(asked.rpartition("=")[2].partition("-")[0])
            assert port % 2 == 0
            pictures = session.pictures(threading.Event())
            sent = list(packets([[KEY + bytes((at,))] for at in range(3)]))
            other.sendto(rtp(KEY + b"evil", 0, 0, marker=True), ("127.0.0.1", port))
            for at in (0, 2, 1):
                media.sendto(sent[at], ("127.0.0.1", port))
            came = [next(pictures).picture.data[-1] for _ in range(3)]
    assert came == [0, 1, 2]
