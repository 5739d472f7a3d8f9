"""Figures as people read them."""

from __future__ import annotations

import pytest

from model_compiler.bootstrap import Interval
from model_compiler.reporting import words


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.number(-0.3), "0"),
        (words.number(-1234.5, 1), "−1,234.5"),
        (words.signed(0.004, 2), "0.00"),
        (words.signed(0.31, 2), "+0.31"),
        (words.signed(-0.31, 2), "−0.31"),
        (words.percent(0.9294), "92.9 %"),
        (words.points(-0.31), "0.31 points"),
        (words.interval(Interval(0.0, -0.0072, 0.001), 100), "−0.72 to +0.10"),
        (words.size(349_312), "349 kB"),
        (words.size(4_912_336), "4.91 MB"),
        (words.size(999), "999 B"),
        (words.size(0), "0 B"),
        (words.ms(0.03215), "0.0321 ms"),
        (words.ms(12.3456), "12.3 ms"),
        (words.times(6.817), "6.8×"),
        (words.times(137.2), "137×"),
        (words.seconds(0.42), "0.42 s"),
        (words.seconds(6.3), "6.3 s"),
        (words.seconds(59.99), "1 min 0 s"),
        (words.seconds(200), "3 min 20 s"),
        (words.seconds(3_912), "1 h 5 min"),
        (words.counted(1, "layer"), "1 layer"),
        (words.counted(12_000, "layer"), "12,000 layers"),
        (words.listed(("a", "b", "c")), "a, b and c"),
        (words.listed(()), ""),
    ],
)
def test_a_figure_is_written(written: str, expected: str) -> None:
    assert written.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_a_column_has_one_unit_and_as_many_digits_in_every_row() -> None:
    assert words.size_column([4_912_336, 331_904]) == ("kB", ["4,912", "332"])
    assert words.size_column([9_216, 8_192]) == ("kB", ["9.22", "8.19"])
    assert words.size_column([]) == ("B", [])


def test_digits_suit_the_smallest_that_is_not_nothing() -> None:
    assert words.digits_for([0.0321, 8.9]) == 4
    assert words.digits_for([1.31, 8.93]) == 2
    assert words.digits_for([0.0, 250.0]) == 0
    assert words.digits_for([]) == 0
