"""Line charts as small SVG files that can be read on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 48, 40
_COLOURS = (("#1d4ed8", "#60a5fa"), ("#b45309", "#fbbf24"), ("#047857", "#34d399"), ("#a21caf", "#e879f9"))
_PLAIN, _PALE = ("#334155", "#cbd5e1"), ("#cbd5e1", "#475569")
_FONT = "Inter, Segoe UI, Helvetica, Arial, sans-serif"


class Line(NamedTuple):
    """`points` are x and y. Lines with one name are drawn and named alike."""

    name: str
    points: Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """One chart; `log` for its y axis. `most` is where the y axis ends, 0: at the most there is."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    log: bool = False
    most: float = 0.0


class _Axis(NamedTuple):
    """From a range of values to one of pixels."""

    low: float
    high: float
    at_low: float
    at_high: float
    log: bool

    def at(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.at_low + min(1.0, max(0.0, share)) * (self.at_high - self.at_low)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        rough = (self.high - self.low) / 4
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(each * size for each in (1, 2, 5, 10) if each * size >= rough)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def draw(title: str, panels: Sequence[Panel]) -> str:
    """An SVG file of all panels side by side, each with its own axes; one name has one colour in all of them."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    width = _WIDTH / len(panels)
    parts = [_panel(panel, names, number * width, width) for number, panel in enumerate(panels)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="{_FONT}" '
        f'font-size="12">\n<title>{escape(title)}</title>\n<style>\n{_style()}\n</style>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _style() -> str:
    def rules(which: int) -> str:
        text = f"text {{ fill: {_PLAIN[which]} }} .grid {{ stroke: {_PALE[which]} }}"
        lines = (
            f".s{number} {{ stroke: {each[which]} }} .n{number} {{ fill: {each[which]} }}"
            for number, each in enumerate(_COLOURS)
        )
        return " ".join((text, *lines))

    return f"{rules(0)}\n@media (prefers-color-scheme: dark) {{ {rules(1)} }}"


def _panel(panel: Panel, names: Sequence[str], left: float, width: float) -> str:
    points = [point for line in panel.lines for point in line.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    across = _Axis(min(xs), max(xs), left + _LEFT, left + width - _RIGHT, False)
    low = min(y for y in ys if y > 0) if panel.log else 0.0
    up = _Axis(low, panel.most or max(ys), _HEIGHT - _BOTTOM, _TOP, panel.log)
    middle = (across.at_low + across.at_high) / 2
    parts = [
        f'<text x="{left + _LEFT:.0f}" y="16" font-weight="600">{escape(panel.title)}</text>',
        f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(panel.x)}</text>',
        f'<text x="{left + 4:.0f}" y="{_TOP - 10}">{escape(panel.y)}</text>',
        *(_across_tick(across, value) for value in across.ticks()),
        *(_up_tick(up, across, value) for value in up.ticks()),
        *(_line(line, names.index(line.name), across, up) for line in panel.lines),
        *_legend(list(dict.fromkeys(line.name for line in panel.lines)), names, across.at_high),
    ]
    return "\n".join(parts)


def _across_tick(across: _Axis, value: float) -> str:
    return f'<text x="{across.at(value):.0f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{value:g}</text>'


def _up_tick(up: _Axis, across: _Axis, value: float) -> str:
    y = up.at(value)
    line = f'<path class="grid" d="M{across.at_low:.0f} {y:.0f}H{across.at_high:.0f}" stroke-width="0.5"/>'
    return f'{line}<text x="{across.at_low - 6:.0f}" y="{y + 4:.0f}" text-anchor="end">{value:,g}</text>'


def _line(line: Line, colour: int, across: _Axis, up: _Axis) -> str:
    path = "L".join(f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in line.points)
    return f'<path class="s{colour}" d="M{path}" fill="none" stroke-width="1.6" stroke-linejoin="round"/>'


def _legend(shown: Sequence[str], names: Sequence[str], right: float) -> list[str]:
    """Names in their colours, to the left of `right`, above the lines."""
    spans = "  ".join(f'<tspan class="n{names.index(name)}">{escape(name)}</tspan>' for name in shown)
    return [f'<text x="{right:.0f}" y="{_TOP - 10}" text-anchor="end" xml:space="preserve">{spans}</text>']
