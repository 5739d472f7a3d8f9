"""Latency over load as an inline SVG, in the colours of the page it stands on."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from contracts.acceptance import Curve, Point

WIDTH, HEIGHT = 720.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 84.0, 16.0, 46.0
_LINES: tuple[tuple[str, Callable[[Point], float]], ...] = (
    ("p99", lambda point: point.p99_ms),
    ("p95", lambda point: point.p95_ms),
    ("p50", lambda point: point.p50_ms),
)

Place = Callable[[float], float]


def chart(curve: Curve) -> str:
    """Closed loops as lines over answers a second, with the requests at once at their points; open loops as rings."""
    answered = [point for point in curve.points if point.answered]
    if not answered:
        return ""
    across, down = _scales(answered)
    closed = [point for point in answered if point.loop == "closed"]
    parts = [*_grid(answered, across, down)]
    for (name, value), apart in zip(_LINES, _label_shifts(closed, down), strict=True):
        parts += _line(name, closed, value, across, down, apart)
        parts += [_ring(name, point, value, across, down) for point in answered if point.loop == "open"]
    parts += [_level(point, across, down) for point in closed]
    told = html.escape(f"Latency of {curve.model} over answers a second, most {curve.most_per_s:.0f} a second")
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{told}">{body}</svg>'


def _scales(points: Sequence[Point]) -> tuple[Place, Place]:
    most = max(point.throughput for point in points) * 1.05
    low = min(point.p50_ms for point in points)
    high = max(point.p99_ms for point in points)
    low, high = 10 ** math.floor(math.log10(max(low, 1e-3))), 10 ** math.ceil(math.log10(max(high, 2e-3)))
    if low == high:
        high *= 10
    span = math.log10(high / low)

    def across(per_s: float) -> float:
        return _LEFT + per_s / most * (WIDTH - _LEFT - _RIGHT)

    def down(ms: float) -> float:
        return HEIGHT - _BOTTOM - math.log10(max(ms, low) / low) / span * (HEIGHT - _TOP - _BOTTOM)

    return across, down


def _grid(points: Sequence[Point], across: Place, down: Place) -> list[str]:
    low = math.floor(math.log10(max(min(point.p50_ms for point in points), 1e-3)))
    high = max(low + 1, math.ceil(math.log10(max(max(point.p99_ms for point in points), 2e-3))))
    rows = [10.0**power for power in range(low, high + 1)]
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    drawn = [
        f'<path class="grid" d="M{_LEFT:g} {down(ms):.1f}H{right:g}"/>'
        f'<text class="axis" x="{_LEFT - 8:g}" y="{down(ms) + 4:.1f}" text-anchor="end">{ms:g} ms</text>'
        for ms in rows
    ]
    drawn += [
        f'<text class="axis" x="{across(per_s):.1f}" y="{bottom + 18:g}" text-anchor="middle">{per_s:g}</text>'
        for per_s in ticks(max(point.throughput for point in points))
    ]
    drawn.append(
        f'<text class="axis" x="{(_LEFT + right) / 2:g}" y="{HEIGHT - 8:g}" text-anchor="middle">answers/s</text>'
    )
    return drawn


def ticks(most: float) -> list[float]:
    """Round numbers from 0 up to `most`, four to eight of them."""
    step = 10 ** math.floor(math.log10(max(most, 1e-9) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 8)
    return [round(step * at, 9) for at in range(int(most / step) + 1)]


def _line(
    name: str, closed: Sequence[Point], value: Callable[[Point], float], across: Place, down: Place, shift: float
) -> list[str]:
    if not closed:
        return []
    places = [(across(point.throughput), down(value(point))) for point in closed]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle class="{name} dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    y = places[-1][1] + shift
    label = f'<text class="{name} name" x="{WIDTH - _RIGHT + 10:g}" y="{y + 4:.1f}">{name}</text>'
    return [f'<path class="{name} line" d="M{path}"/>', dots, label]


def _label_shifts(closed: Sequence[Point], down: Place) -> list[float]:
    """How far the names of the lines move down so that none covers another."""
    shifts, last = [], -math.inf
    for _, value in _LINES:
        wanted = down(value(closed[-1])) if closed else 0.0
        placed = max(wanted, last + 15)
        shifts.append(placed - wanted)
        last = placed
    return shifts


def _ring(name: str, point: Point, value: Callable[[Point], float], across: Place, down: Place) -> str:
    return f'<circle class="{name} ring" cx="{across(point.throughput):.1f}" cy="{down(value(point)):.1f}" r="4"/>'


def _level(point: Point, across: Place, down: Place) -> str:
    x, y = across(point.throughput), down(point.p99_ms) - 9
    return f'<text class="level" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{point.concurrency}</text>'
