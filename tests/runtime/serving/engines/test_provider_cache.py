from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime.serving.engines.provider_cache import KEPT, clear, room_for


def test_an_artifact_has_a_directory_that_only_its_user_enters(tmp_path: Path) -> None:
    root = tmp_path / "state" / "providers"
    place = room_for(root, "sha256:" + "a" * 64)
    assert place == root / ("sha256-" + "a" * 64)
    assert room_for(root, "sha256:" + "a" * 64) == place
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, place)] == [0o700, 0o700]


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for number in range(KEPT):
        place = room_for(tmp_path / "p", f"sha256:{number}")
        assert place is not None
        (place / "engine").write_bytes(b"x")
        os.utime(place, (number, number))
    first = tmp_path / "p" / "sha256-0"
    room_for(tmp_path / "p", "sha256:0")
    room_for(tmp_path / "p", "sha256:new")
    assert first.exists()
    assert not (tmp_path / "p" / "sha256-1").exists()
    assert len([*(tmp_path / "p").iterdir()]) == KEPT


def test_without_a_directory_nothing_is_kept_and_the_model_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p").write_text("a file")
    assert room_for(tmp_path / "p", "sha256:a") is None
    assert "nothing compiled is kept" in caplog.text


def test_all_of_it_may_be_cleared_and_there_is_room_again(tmp_path: Path) -> None:
    clear(tmp_path / "nothing yet")
    place = room_for(tmp_path / "p", "sha256:a")
    assert place is not None
    (place / "engine").write_bytes(b"x")
    clear(tmp_path / "p")
    assert not place.exists()
    assert room_for(tmp_path / "p", "sha256:a") == place
