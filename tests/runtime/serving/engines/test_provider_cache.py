from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime.serving.engines.provider_cache import KEPT, drop_graphs, keep_only, room_for


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


def test_of_artifacts_that_are_gone_nothing_stays(tmp_path: Path) -> None:
    keep_only(tmp_path / "nothing yet", {"sha256:a"})
    places = [room_for(tmp_path / "p", digest) for digest in ("sha256:a", "sha256:b")]
    keep_only(tmp_path / "p", {"sha256:b", "sha256:c"})
    assert [place is not None and place.exists() for place in places] == [False, True]


def test_graphs_make_room_and_what_took_long_to_compile_stays(tmp_path: Path) -> None:
    place = room_for(tmp_path / "p", "sha256:a")
    assert place is not None
    (place / "engine").write_bytes(b"x")
    (place / "graph-1").mkdir()
    (place / "graph-1" / "weights.bin").write_bytes(b"x")
    drop_graphs(tmp_path / "p")
    assert [entry.name for entry in place.iterdir()] == ["engine"]
