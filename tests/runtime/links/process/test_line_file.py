"""Lines that a thread writes: all, whole, in order; what the disk does not take is counted, and blocks nobody."""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.links.process.line_file import LineFile


def rendered(number: int) -> bytes:
    if number < 0:
        raise ValueError(number)
    return b"%d\n" % number


def lines_in(path: Path) -> list[int]:
    return [*map(int, path.read_text().split())]


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_all_lines_are_written_in_order_and_only_their_owner_and_group_read_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("-1\n")
    lines = LineFile(str(path), rendered)
    for number in range(1000):
        lines.note(number)
    lines.close()
    assert lines_in(path) == [-1, *range(1000)]
    assert lines.dropped == 0
    fresh = LineFile(str(tmp_path / "fresh"), rendered)
    fresh.close()
    assert (tmp_path / "fresh").stat().st_mode & 0o007 == 0


def test_they_are_written_without_waiting_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = LineFile(str(path), rendered)
    for number in (1, 2):
        lines.note(number)
        until(lambda number=number: number in lines_in(path))  # type: ignore[misc]
    lines.close()


def test_a_file_that_was_moved_away_is_left_when_it_is_told_to(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    lines = LineFile(str(path), rendered)
    lines.note(1)
    until(lambda: lines_in(path) == [1])
    path.rename(moved)
    lines.reopen()
    until(path.exists)
    lines.note(2)
    lines.close()
    assert (lines_in(moved), lines_in(path)) == ([1], [2])


def test_where_it_cannot_be_opened_again_lines_go_where_they_went(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    lines = LineFile(str(folder / "log"), rendered)
    folder.rename(tmp_path / "moved")
    lines.reopen()
    until(lambda: "cannot be reopened" in caplog.text)
    lines.note(1)
    lines.close()
    assert lines_in(tmp_path / "moved" / "log") == [1]


def test_a_disk_that_hangs_blocks_nobody_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    """A pipe that nobody reads hangs as a disk does."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines: LineFile[int] = LineFile(str(path), lambda _: b"x" * 65_535 + b"\n", most=100)
    for number in range(200):
        lines.note(number)
    until(lambda: len(lines._waiting) < 100)  # the thread holds some that it cannot get rid of
    begun_s = time.monotonic()
    for number in range(1000):
        lines.note(number)
    assert time.monotonic() - begun_s < 0.5
    assert lines.dropped >= 1000 - 100
    os.close(reader)
    lines.close()


def test_a_full_disk_costs_lines_and_no_half_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A limit on the size of files fails as a full disk does: within a line, once."""
    path = tmp_path / "log"
    caplog.set_level(logging.WARNING)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    lines = LineFile(str(path), rendered)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (101, was[1]))
        for number in range(1000, 1100):
            lines.note(number)
        until(lambda: lines.dropped > 0)
        lines.note(2000)
        until(lambda: lines.dropped == 81)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    lines.note(3000)
    lines.close()
    told = path.read_text().splitlines()
    assert told == [*map(str, range(1000, 1020)), "1", "3000"]
    assert caplog.text.count("cannot be written") == 1
    assert caplog.text.count("can again be written") == 1


def test_one_that_cannot_be_rendered_is_counted_and_the_others_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    lines = LineFile(str(path), rendered)
    for number in (1, -1, 2, -2, 3):
        lines.note(number)
    lines.close()
    assert (lines_in(path), lines.dropped) == ([1, 2, 3], 2)
    assert caplog.text.count("cannot be rendered") == 1


def test_a_path_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        LineFile(str(tmp_path / "absent" / "log"), rendered)
