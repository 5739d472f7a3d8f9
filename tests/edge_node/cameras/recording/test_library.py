"""The clips as others see them: pages, ids that lead nowhere else, and what happens while somebody reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from edge_node.cameras.recording.clip import begun_at_s, name_of, parse_name
from tests.edge_node.cameras.recording.footage import NOW_S
from tests.edge_node.cameras.recording.test_shelf import Shelved, pieces


@pytest.fixture
def on(tmp_path: Path) -> Shelved:
    shelved = Shelved(tmp_path / "clips")
    for number in range(10):
        shelved.put(f"e{number}", camera=("yard", "gate")[number % 2])
    return shelved


def test_pages_show_every_clip_once_the_newest_first(on: Shelved) -> None:
    seen: list[str] = []
    after = ""
    for _ in range(4):
        page = on.library.list(limit=3, after=after)
        seen += [listed.clip.events[0] for listed in page.clips]
        after = page.next
    assert seen == [f"e{number}" for number in reversed(range(10))]
    assert after == ""


def test_a_page_goes_on_where_it_was_though_clips_came_and_went(on: Shelved) -> None:
    page = on.library.list(limit=3)
    on.library.delete(page.clips[-1].id)
    on.put("new")
    following = on.library.list(limit=3, after=page.next)
    assert [listed.clip.events[0] for listed in following.clips] == ["e6", "e5", "e4"]


def test_clips_are_found_by_camera_and_time(on: Shelved) -> None:
    found = on.library.list(camera="gate", from_s=NOW_S + 4 * 60, until_s=NOW_S + 8 * 60)
    assert [listed.clip.events[0] for listed in found.clips] == ["e5", "e3"]
    assert on.library.list(camera="nobody").clips == ()


@pytest.mark.parametrize(
    "more", [{"limit": 0}, {"limit": 1001}, {"after": "x"}, {"after": "x/yard/2027-01-15/080000-e"}]
)
def test_a_page_that_cannot_be_is_refused(on: Shelved, more: dict[str, int | str]) -> None:
    with pytest.raises(FoothillError) as refused:
        on.library.list(**more)  # type: ignore[arg-type]
    assert refused.value.code == "bad_request"


def test_an_opened_clip_can_be_read_after_it_was_deleted(on: Shelved) -> None:
    listed = on.library.list(limit=1).clips[0]
    opened = on.library.open(listed.id)
    on.library.delete(listed.id)
    with opened.file as file:
        assert file.read() == b"".join(pieces("e9", 300))
    with pytest.raises(FoothillError) as missing:
        on.library.open(listed.id)
    assert missing.value.code == "not_found"


def test_a_marked_clip_says_so_and_is_deleted_by_name(on: Shelved) -> None:
    listed = on.library.list(limit=1).clips[0]
    assert on.library.keep(listed.id).keep
    assert on.library.list(limit=1).clips[0].clip.keep
    on.library.delete(listed.id)
    assert on.library.list(limit=1).clips[0].id != listed.id


LEADING_AWAY = [
    "", ".", "..", "/", "/etc/passwd", "../../etc/passwd", "yard/../../secret/2027-01-15/080000-e",
    "yard/2027-01-15/../../../secret", "yard/2027-01-15/080000-e.mp4", "yard/2027-01-15/080000-e/", ".writing/yard-0",
    "yard/2027-01-15/080000-e\0", "yard/2027-01-15/080000-..", "yard\\2027-01-15\\080000-e", "YARD/2027-01-15/080000-e",
    "yard/2027-01-15/080000-e\n", "yard/２０２７-01-15/080000-e", "yard/2027-01-15/" + "080000-" + "e" * 300,
]  # fmt: skip


@pytest.mark.parametrize("clip_id", LEADING_AWAY)
def test_an_id_that_no_listing_gave_opens_nothing(on: Shelved, tmp_path: Path, clip_id: str) -> None:
    (tmp_path / "secret").write_text("secret")
    for ask in (on.library.open, on.library.delete, on.library.keep):
        with pytest.raises(FoothillError) as refused:
            ask(clip_id)
        assert refused.value.code == "not_found"
    assert (tmp_path / "secret").exists()
    assert len(on.library.list().clips) == 10


def test_a_file_that_was_put_there_by_hand_is_not_opened(on: Shelved, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    day = next((tmp_path / "clips/yard").iterdir())
    os.symlink(secret, day / "120000-link.mp4")
    with pytest.raises(FoothillError):
        on.library.open(f"yard/{day.name}/120000-link")


@given(st.text(max_size=100), st.floats(-1e12, 1e15), st.sampled_from(["yard", "a", "0-9"]))
def test_every_name_that_is_given_is_one_that_is_understood(event: str, at_s: float, camera: str) -> None:
    name = name_of(camera, at_s, event)
    assert parse_name(str(name)) == name
    assert not {"", ".", ".."} & set(name)
    assert not any("/" in part or "\0" in part for part in name)
    begun = begun_at_s(name)
    assert begun is not None
    assert begun == pytest.approx(min(max(at_s, 0), 32_503_680_000), abs=1.0)


@given(st.text(max_size=60))
def test_what_is_understood_stays_below_the_directory(clip_id: str) -> None:
    name = parse_name(clip_id)
    if name is not None:
        assert Path("/clips") in name.below(Path("/clips")).resolve().parents
