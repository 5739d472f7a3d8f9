"""The page's colours can be read, by day and by night."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_compiler.reporting import page
from model_compiler.reporting.svg import INKS

STYLE = Path(page.__file__).with_name("style.css").read_text()
LIGHT, DARK = (
    dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{([^}]*)\}", STYLE)[:2]
)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "muted", "accent", "blue", "warn", "bad"])
@pytest.mark.parametrize("ground", ["paper", "soft"])
def test_letters_stand_out(scheme: dict[str, str], ink: str, ground: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text."""
    assert contrast(scheme[ink], scheme[ground]) >= 4.5


def test_every_ink_of_a_picture_has_a_colour_in_both_schemes() -> None:
    assert set(INKS) == set(LIGHT) == set(DARK)
