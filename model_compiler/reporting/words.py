"""How figures are written: with their unit, a space that does not break, a true minus, digits that suit a column."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model_compiler.bootstrap import Interval

_SPACE = "\N{NO-BREAK SPACE}"
_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def number(value: float, digits: int = 0) -> str:
    """With thousands apart, `digits` after the point, and no "-0.0"."""
    written = f"{value:,.{digits}f}"
    return written.lstrip("-") if float(written.replace(",", "")) == 0 else written.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int) -> str:
    """As `number`, with a plus where it is above 0."""
    written = number(value, digits)
    return f"+{written}" if float(f"{value:.{digits}f}") > 0 else written


def percent(share: float, digits: int = 1) -> str:
    return f"{number(100 * share, digits)}{_SPACE}%"


def points(value: float, digits: int = 2) -> str:
    """`value` in points, without a sign."""
    return f"{number(abs(value), digits)}{_SPACE}points"


def interval(of: Interval, scale: float = 1.0, digits: int = 2) -> str:
    """Its ends, as "−0.72 to +0.10"."""
    return f"{signed(scale * of.low, digits)} to {signed(scale * of.high, digits)}"


def size(count: float) -> str:
    """Bytes with three digits that count: "11.5 kB"."""
    unit, factor = unit_of(count)
    digits = 0 if factor == 1 else digits_for([count / factor])
    return f"{number(count / factor, digits)}{_SPACE}{unit}"


def size_column(counts: Sequence[float]) -> tuple[str, list[str]]:
    """The unit of the smallest, and all counts in it, with as many digits each."""
    unit, factor = unit_of(min(counts, default=0))
    digits = 0 if factor == 1 else digits_for([count / factor for count in counts])
    return unit, [number(count / factor, digits) for count in counts]


def ms(value: float) -> str:
    return f"{number(value, digits_for([value]))}{_SPACE}ms"


def times(ratio: float) -> str:
    return f"{number(ratio, 1 if ratio < 99.95 else 0)}×"


def seconds(value: float) -> str:
    """ "0.42 s", "3 min 20 s", "1 h 5 min"."""
    if value < 59.95:
        return f"{number(value, 2 if value < 0.995 else 1)}{_SPACE}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min{_SPACE}{whole % 60}{_SPACE}s"
    return f"{whole // 3600}{_SPACE}h{_SPACE}{whole % 3600 // 60}{_SPACE}min"


def decibel(value: float) -> str:
    return f"{number(value, 1)}{_SPACE}dB"


def digits_for(values: Sequence[float], significant: int = 3, most: int = 4) -> int:
    """Digits after the point with which the smallest of `values` that is not 0 shows `significant` ones."""
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes:
        return 0
    return min(most, max(0, significant - 1 - math.floor(math.log10(min(sizes)) + 1e-12)))


def counted(count: int, noun: str, plural: str = "") -> str:
    """ "1 layer", "12 layers"."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def unit_of(count: float) -> tuple[str, int]:
    """The unit in which so many bytes are told, and how many bytes it has."""
    return next((each for each in _UNITS if count >= each[1]), _UNITS[-1])
