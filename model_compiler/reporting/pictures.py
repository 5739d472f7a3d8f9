"""The report's pictures, drawn by matplotlib as inline SVG in the page's own colours and letters."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Container, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from model_compiler.errors import CompileError
from model_compiler.reporting import words
from model_compiler.reporting.findings import EXACT_DB, Bin, Diagnosis, LayerNoise, Reliability, Rule
from model_compiler.reporting.fronts import Point, front
from model_compiler.reporting.labels import Box, Label, Side, along, place
from model_compiler.reporting.markup import Html, printable
from model_compiler.reporting.svg import INKS, for_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

INK, MUTED, LINE, PAPER = INKS["ink"], INKS["muted"], INKS["line"], INKS["paper"]
ACCENT, BLUE, WARN, BAD = INKS["accent"], INKS["blue"], INKS["warn"], INKS["bad"]

_WIDTH, _HEIGHT = 400.0, 290.0
_FRAME = (0.12, 0.155, 0.86, 0.72)
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "figure.dpi": 72,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "lines.solid_capstyle": "round",
}


class Spot(msgspec.Struct, frozen=True):
    """A candidate in the picture of the front. `low`, `high`: the interval of its worth; both equal to it for none."""

    point: Point
    low: float
    high: float
    reference: bool = False
    chosen: bool = False


class Cost(msgspec.Struct, frozen=True):
    """What a front is against: a `key` for the page, a `title` with the unit, the `limit` that the budget sets."""

    key: str
    title: str
    limit: float | None = None


def front_picture(spots: Sequence[Spot], *, metric: str, cost: Cost, floor: float | None, told: str) -> Html:
    """The metric against a cost, with the Pareto front. `floor`: the share that the budget allows to fall to."""

    def draw(figure: Figure) -> None:
        axes = _axes(figure, title=f"{metric}, %", across=cost.title)
        _frame_front(axes, spots, floor)
        drawn = _draw_budget(axes, floor, cost.limit)
        best = front([spot.point for spot in spots])
        steps = _steps(best)
        axes.plot([cost for cost, _ in steps], [100 * worth for _, worth in steps], color=MUTED, lw=1.2, zorder=2)
        for spot in spots:
            _draw_spot(axes, spot, spot.point in best)
        drawn += along([_place_of(axes, *each) for each in steps])
        _name_spots(axes, spots, best, drawn)

    return _drawn(draw, f"front-{cost.key}", told)


def noise_picture(diagnosis: Diagnosis, *, told: str, key: str) -> Html:
    """The signal-to-noise ratio of every tensor in the order of the graph; the findings carry their numbers."""

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = _axes(figure, title="signal to noise, dB", across="tensor, in the order of the graph")
        ratios = _within_sight([layer.sqnr_db for layer in diagnosis.layers])
        found = {(finding.node, finding.tensor): at for at, finding in enumerate(diagnosis.findings, 1)}
        bottom, top = min([0.0, *ratios]), max([10.0, *ratios])
        axes.set(xlim=(0, len(ratios) + 1), ylim=(bottom, top + 0.16 * (top - bottom)))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _draw_stems(axes, diagnosis.layers, ratios, found, bottom)
        for at, (layer, ratio) in enumerate(zip(diagnosis.layers, ratios, strict=True), 1):
            if (layer.node, layer.tensor) in found:
                _write(
                    axes, str(found[layer.node, layer.tensor]), (at, ratio), (0, 5), ha="center", va="bottom", color=BAD
                )

    return _drawn(draw, key, told)


def reliability_picture(before: Reliability, after: Reliability, *, told: str, key: str) -> Html:
    """Share right against confidence, before and after calibration; each bin's distance from the diagonal is drawn."""

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import MaxNLocator

        whole = max(sum(one.count for one in each.bins) for each in (before, after)) or 1
        low = _lowest((*before.bins, *after.bins))
        room = 0.03 * (100 - low)
        for at, (title, reliability) in enumerate((("before", before), ("after", after))):
            frame = (0.12 + 0.455 * at, _FRAME[1], 0.405, _FRAME[3])
            axes = _axes(
                figure, title=f"{title}: ECE {words.percent(reliability.ece)}", across="confidence, %", frame=frame
            )
            axes.set(xlim=(low - room, 100 + room), ylim=(low - room, 100 + room))
            axes.set(xticks=(low, (low + 100) / 2, 100))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
            if at:
                axes.tick_params(labelleft=False)
            axes.plot([low, 100], [low, 100], color=MUTED, lw=1, ls=(0, (3, 3)))
            for one in reliability.bins:
                x, y = 100 * one.confidence, 100 * one.right
                axes.plot([x, x], [x, y], color=WARN, lw=2, zorder=2)
                axes.plot(x, y, "o", ms=3 + 9 * math.sqrt(one.count / whole), mfc=BLUE, mec=PAPER, mew=0.6, zorder=3)

    return _drawn(draw, key, told)


def risk_picture(rule: Rule, *, told: str, key: str) -> Html:
    """The joint risk against the share escalated, the promise, and the point that is certified."""

    def draw(figure: Figure) -> None:
        axes = _axes(figure, title="kept and unlike the cloud, % of all", across="escalated, %")
        xs = [100 * point.escalation for point in rule.curve]
        ys = [100 * point.risk for point in rule.curve]
        top = max([*ys, 100 * rule.epsilon, 100 * rule.smallest_epsilon])
        axes.set(xlim=(-2, 102), ylim=(-0.03 * top, 1.2 * top))
        axes.plot(xs, ys, color=BLUE, lw=2, zorder=3)
        _across(axes, 100 * rule.epsilon, f"promised: ε = {words.percent(rule.epsilon)}", MUTED)
        if rule.feasible:
            at = (100 * rule.escalation, 100 * rule.risk)
            axes.plot([at[0], at[0]], [-0.03 * top, at[1]], color=ACCENT, lw=1, zorder=2)
            axes.plot(*at, "o", ms=9, mfc=ACCENT, mec=PAPER, mew=1.2, zorder=4)
            # Under the curve there is room: on the left of the point unless it stands at the left end.
            side, away = ("right", -8) if rule.escalation > 0.25 else ("left", 8)
            _write(axes, "certified", at, (away, -7), ha=side, va="top", color=ACCENT, weight="bold")
        else:
            _across(axes, 100 * rule.smallest_epsilon, f"smallest: {words.percent(rule.smallest_epsilon)}", BAD)

    return _drawn(draw, key, told)


def _lowest(bins: Sequence[Bin]) -> float:
    """The ten percent below all of them: they crowd near 100 %, and from 0 would lie on one another."""
    lowest = min((value for each in bins for value in (each.confidence, each.right)), default=0.0)
    return 10.0 * min(9, math.floor(10 * lowest))


def _within_sight(ratios: Sequence[float]) -> list[float]:
    """Those without noise as high as the best of the others, those of nothing but noise not far below 0: so that the
    others can be told apart."""
    highest = max([10.0, *(ratio for ratio in ratios if ratio < EXACT_DB)])
    return [max(-10.0, min(ratio, highest)) for ratio in ratios]


def _draw_stems(
    axes: Axes, layers: Sequence[LayerNoise], ratios: Sequence[float], found: Container[tuple[str, str]], bottom: float
) -> None:
    """What is found in a colour of its own, what stays in float hollow; thinner the more there are."""
    size = min(5.5, max(2.0, 260.0 / max(1, len(layers))))
    kinds = [((layer.node, layer.tensor) in found, layer.precision not in ("int8", "int4")) for layer in layers]
    for kind in sorted(set(kinds)):
        xs = [at for at, each in enumerate(kinds, 1) if each == kind]
        ys = [ratios[at - 1] for at in xs]
        (bad, kept), colour = kind, BAD if kind[0] else MUTED
        axes.vlines(xs, bottom, ys, color=colour, lw=size / 4, alpha=0.55, zorder=2)
        face = PAPER if kept else colour
        axes.plot(xs, ys, "o", ms=size, mfc=face, mec=colour, mew=1.2, zorder=4 if bad else 3)


def _drawn(draw: Callable[[Figure], None], key: str, told: str) -> Html:
    """`key` tells the picture from the others of the page; the same picture under the same key has the same bytes."""
    try:
        import matplotlib.style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CompileError("The report's pictures need matplotlib. Install it: pip install matplotlib.") from error
    prefix = re.sub(r"[^a-z0-9]+", "-", key.lower()) + "-"
    file = io.StringIO()
    # The page's letters are drawn, not matplotlib's: that its own font has no glyph for a name matters little.
    with warnings.catch_warnings(), matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": prefix}]):
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72))
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return for_page(file.getvalue(), prefix, told)


def _axes(figure: Figure, *, title: str, across: str, frame: tuple[float, float, float, float] = _FRAME) -> Axes:
    """Titles stand over the plot and under its right end, so that nothing has to be read sideways."""
    axes = figure.add_axes(frame)
    axes.grid(axis="y")
    axes.tick_params(length=3, pad=4)
    axes.text(0.0, 1.06, _plain(title), transform=axes.transAxes, ha="left", va="bottom", color=INK)
    axes.text(1.0, -0.13, _plain(across), transform=axes.transAxes, ha="right", va="top", color=INK)
    return axes


def _frame_front(axes: Axes, spots: Sequence[Spot], floor: float | None) -> None:
    """Costs on a logarithmic axis where they span more than threefold, worths with room around them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    costs = [spot.point.cost for spot in spots]
    worths = [100 * value for spot in spots for value in (spot.low, spot.high)]
    worths += [100 * floor] if floor is not None else []
    low, high = min(worths), max(worths)
    room = max(0.05, 0.12 * (high - low))
    axes.set_ylim(low - room, high + 1.4 * room)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if min(costs) > 0 and max(costs) > 3 * min(costs):
        axes.set_xscale("log")
        spread = max(costs) / min(costs)
        axes.set_xlim(min(costs) / spread**0.12, max(costs) * spread**0.12)
        axes.set_xticks(_round_numbers(min(costs) / spread**0.12, max(costs) * spread**0.12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.12 * (max(costs) - min(costs)) or 0.2 * max(costs) or 1.0
        axes.set_xlim(min(costs) - room, max(costs) + room)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 or 5 times powers of ten between the two: as many of them as can be read side by side."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= 6:
            return found
    return found[:: math.ceil(len(found) / 6)]


def _steps(best: Sequence[Point]) -> list[tuple[float, float]]:
    """Through the front by rising cost: nothing lies between two of its points, so that what a cost buys is what the
    one before it is worth."""
    corners = [(after.cost, before.worth) for before, after in pairwise(best)]
    points = [(each.cost, each.worth) for each in best]
    return [*(place for pair in zip(points, corners, strict=False) for place in pair), *points[-1:]]


def _draw_budget(axes: Axes, floor: float | None, limit: float | None) -> list[Box]:
    """What it covers, in points of the picture."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    drawn: list[Box] = []
    if floor is not None:
        box = _across(axes, 100 * floor, "promised", MUTED).get_window_extent()
        drawn = along([_place_of(axes, left, floor), _place_of(axes, right, floor)])
        drawn.append(Box(box.x0, box.y0, box.x1, box.y1))
    if limit is not None and left < limit < right:
        axes.axvline(limit, color=MUTED, lw=1, ls=(0, (3, 3)), zorder=1)
        drawn += along([_place_of(axes, limit, bottom / 100), _place_of(axes, limit, top / 100)])
    return drawn


def _draw_spot(axes: Axes, spot: Spot, best: bool) -> None:
    x, y = spot.point.cost, 100 * spot.point.worth
    colour = ACCENT if spot.chosen else BLUE if spot.reference else MUTED
    if spot.high > spot.low:
        axes.plot([x, x], [100 * spot.low, 100 * spot.high], color=colour, lw=1.2, alpha=0.7, zorder=3)
    marker, size = ("D", 7.5) if spot.reference else ("o", 10.0 if spot.chosen else 7.0)
    face = colour if best or spot.chosen or spot.reference else PAPER
    axes.plot(x, y, marker, ms=size, mfc=face, mec=PAPER if face == colour else colour, mew=1.2, zorder=4)


def _name_spots(axes: Axes, spots: Sequence[Spot], best: Sequence[Point], drawn: Sequence[Box]) -> None:
    """What is chosen first, so that it has the best place; what others beat has a name where there is room."""
    needed = [spot for spot in spots if spot.reference or spot.chosen or spot.point in best]
    ordered = sorted(spots, key=lambda spot: (spot not in needed, not spot.chosen, not spot.reference, spot.point.name))
    labels = [_label(axes, spot, needed=spot in needed) for spot in ordered]
    frame = axes.get_window_extent()
    inside = Box(frame.x0, frame.y0, _WIDTH, frame.y1)
    lines = list(drawn)
    for spot in spots:
        lines += along([_place_of(axes, spot.point.cost, worth) for worth in (spot.low, spot.high)])
    for spot, label, placed in zip(ordered, labels, place(labels, inside, avoid=lines, away=9.0), strict=True):
        if placed is not None:
            _name_spot(axes, spot, (placed.x - label.x, placed.y - label.y), placed.side)


def _label(axes: Axes, spot: Spot, *, needed: bool) -> Label:
    (x, y), (width, height) = _place_of(axes, spot.point.cost, spot.point.worth), _text_size(axes, spot.point.name)
    low, high = (_place_of(axes, spot.point.cost, worth)[1] for worth in (spot.low, spot.high))
    return Label(x, y, width, height, above=max(0.0, high - y), below=max(0.0, y - low), needed=needed)


def _name_spot(axes: Axes, spot: Spot, offset: tuple[float, float], side: Side) -> None:
    colour = ACCENT if spot.chosen else BLUE if spot.reference else INK
    weight = "bold" if spot.chosen else "normal"
    at = (spot.point.cost, 100 * spot.point.worth)
    _write(axes, spot.point.name, at, offset, ha=side, va="center", color=colour, weight=weight)


def _place_of(axes: Axes, cost: float, worth: float) -> tuple[float, float]:
    """In points of the picture."""
    x, y = axes.transData.transform((cost, 100 * worth))
    return float(x), float(y)


def _text_size(axes: Axes, text: str) -> tuple[float, float]:
    """In points, as matplotlib's own font has it, which is wider than most pages'."""
    written = axes.text(0, 0, _plain(text))
    box = written.get_window_extent()
    written.remove()
    return box.width, box.height


def _across(axes: Axes, at: float, text: str, colour: str) -> Annotation:
    """A dashed level with its name over its right end."""
    axes.axhline(at, color=colour, lw=1, ls=(0, (3, 3)), zorder=1)
    return axes.annotate(_plain(text), (1.0, at), (0, 3), xycoords=("axes fraction", "data"),
                         textcoords="offset points", ha="right", va="bottom", color=colour, fontsize=10)  # fmt: skip


def _write(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    axes.annotate(_plain(text), at, offset, textcoords="offset points", zorder=5, **style)


def _plain(text: str) -> str:
    """One line that XML can hold."""
    return " ".join(printable(text).split())
