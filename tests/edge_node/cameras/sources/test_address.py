"""Addresses of cameras, and passwords that stay out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_node.cameras.sources.address import Address, Login, parse


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("rtsp://10.0.0.7/stream1", "rtsp"),
        ("RTSPS://cam.example:322/a?profile=1", "rtsp"),
        ("http://10.0.0.7/mjpg/video.mjpg", "http"),
        ("https://[fd00::7]/snap.jpg", "http"),
        ("clips/door.mp4", "file"),
        ("file:///srv/door.mp4", "file"),
        ("/dev/video0", "device"),
        ("pattern:?size=320x240", "pattern"),
    ],
)
def test_an_address_says_what_kind_of_camera_it_is(url: str, kind: str) -> None:
    assert parse(url).kind == kind


def test_a_directory_is_a_folder_and_paths_are_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    assert parse("pictures", base=tmp_path) == Address("folder", str(tmp_path / "pictures"), tmp_path / "pictures")
    assert parse("door.mp4", base=tmp_path).path == tmp_path / "door.mp4"


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("rtsp://admin:secret@10.0.0.7/", None, "`password_env` or `password_file`"),
        ("http://admin@10.0.0.7/", None, "name the user as `user`"),
        ("rtsp:///stream1", None, "names no host"),
        ("", None, "it names nothing"),
        ("a\0b", None, "it names nothing"),
        ("rtsp://10.0.0.7/", "snapshot", "does not fit"),
        ("door.mp4", "rtsp", "does not fit"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_what_to_write(url: str, kind: str | None, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("(", r"\(")) as raised:
        parse(url, kind=kind)  # type: ignore[arg-type]
    assert "secret" not in str(raised.value)


def test_a_password_comes_from_the_environment_or_a_file_each_time_anew(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3 cr/et\nthe rest\n")
    login = Login("admin", password_file=str(file))
    assert login.password({}) == "s3 cr/et"
    file.write_text("other")
    assert login.password({}) == "other"
    assert Login("admin", "DOOR").password({"DOOR": "x"}) == "x"
    assert Login().password({}) == ""
    with pytest.raises(ValueError, match="DOOR is not set"):
        Login("admin", "DOOR").password({})
    with pytest.raises(ValueError, match="cannot be read"):
        Login("admin", password_file=str(tmp_path / "absent")).password({})


def test_only_what_is_given_to_ffmpeg_holds_the_password() -> None:
    address = parse("rtsp://10.0.0.7:554/a?user=x&password=y")
    assert address.shown == "rtsp://10.0.0.7:554/a"
    assert address.with_login("ad min", "p@ss/w:rd") == (
        "rtsp://ad%20min:p%40ss%2Fw%3Ard@10.0.0.7:554/a?user=x&password=y"
    )
    assert address.with_login("", "") == address.url
