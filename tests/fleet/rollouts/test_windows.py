"""Maintenance windows, by the clock on the node's own wall."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts.windows import Window


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


NIGHT = Window("22:00", "04:00", "Europe/Berlin", ("fri",))


@pytest.mark.parametrize(
    ("time", "is_open"),
    [
        ("2026-11-20T21:59:59", False),  # a Friday
        ("2026-11-20T22:00", True),
        ("2026-11-21T03:59:59", True),
        ("2026-11-21T04:00", False),
        ("2026-11-21T22:00", False),
        ("2026-11-20T03:00", False),
    ],
)
def test_one_over_midnight_belongs_to_the_day_on_which_it_began(time: str, is_open: bool) -> None:
    assert NIGHT.is_open(at(time)) is is_open


def test_each_node_goes_by_its_own_zone() -> None:
    night = at("2026-06-10T03:00", "Asia/Tokyo")
    assert Window("02:00", "04:00", "Asia/Tokyo").is_open(night)
    assert not Window("02:00", "04:00", "Europe/Berlin").is_open(night)


def test_the_hour_that_a_clock_change_leaves_out_is_not_there() -> None:
    window = Window("02:00", "03:00", "Europe/Berlin")
    before = at("2026-03-29T01:59")
    assert not any(window.is_open(before + 60 * minute) for minute in range(600))


def test_one_that_ends_when_it_starts_is_open_all_day() -> None:
    assert all(Window("05:00", "05:00").is_open(3600.0 * hour) for hour in range(24))


@given(st.integers(0, 23), st.integers(0, 23), st.floats(0, 4e9))
def test_a_window_and_the_rest_of_the_day_share_no_moment(start: int, end: int, at_s: float) -> None:
    if start != end:
        one, rest = Window(f"{start:02}:00", f"{end:02}:00"), Window(f"{end:02}:00", f"{start:02}:00")
        assert one.is_open(at_s) != rest.is_open(at_s)


@pytest.mark.parametrize(
    "text",
    [
        '{"start": "24:00", "end": "04:00"}',
        '{"start": "2:00", "end": "04:00"}',
        '{"start": "02:00", "end": "04:00", "zone": "Mars/Olympus"}',
        '{"start": "02:00", "end": "04:00", "zone": "../../etc/passwd"}',
        '{"start": "02:00", "end": "04:00", "days": []}',
        '{"start": "02:00", "end": "04:00", "days": ["someday"]}',
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Window)
