"""What the demo prints at its end, for people on a terminal of 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge_node.cameras.web.views import CameraView
from foothill.demo.camera.heard import Heard

_WIDTH = 80
_MOST_NAMES = 6
_UNITS = {"MB": 10**6, "kB": 10**3}


def print_report(view: CameraView, heard: Heard, seconds: float, console: Console) -> None:
    console.print(render(view, heard, seconds), width=min(_WIDTH, console.width))


def render(view: CameraView, heard: Heard, seconds: float) -> RenderableType:
    return Group(_headline(view, heard, seconds), _table(view, heard), _note())


def fewer(view: CameraView) -> float:
    """By which share fewer bytes left than the stream had; 0 where there was no stream."""
    sent = sum(view.sent_bytes.values())
    return 1.0 - sent / view.received_bytes if view.received_bytes else 0.0


def _headline(view: CameraView, heard: Heard, seconds: float) -> RenderableType:
    text = Text()
    text.append(f"{view.frames.decoded:,} pictures in {seconds:.0f} s", style="bold")
    text.append(f", every one of them on the box: {heard.things.total()} things followed, {heard.events} events said. ")
    text.append(f"{fewer(view):.1%} fewer bytes left the box", style="bold green")
    text.append(f" than the stream has: {_bytes(sum(view.sent_bytes.values()))} for {_bytes(view.received_bytes)}.")
    return Panel(text, title="Foothill's cameras", border_style="green", box=box.ROUNDED, padding=(0, 1))


def _table(view: CameraView, heard: Heard) -> RenderableType:
    frames = view.frames
    table = Table(box=None, padding=(0, 1), show_edge=False, show_header=False)
    table.add_column(no_wrap=True, min_width=24)
    table.add_column()
    table.add_row("seen by the model", f"{frames.inferred:,}; {frames.gated:,} showed nothing new")
    table.add_row("not seen", f"{frames.given_way + sum(frames.dropped.values()):,} gave way to newer ones")
    table.add_row("capture to result", f"p50 {view.latency_p50_ms:.0f} ms, p95 {view.latency_p95_ms:.0f} ms")
    table.add_row("things", _named(heard.things))
    table.add_row("over the line", f"{heard.crossings['in']} in, {heard.crossings['out']} out")
    table.add_row("asked about", _named(view.sent) + f", {_bytes(sum(view.sent_bytes.values()))}")
    table.add_row("what became of doubts", _named(view.judged))
    table.add_row("the second look said", _named(_amended(heard), apart="; "))
    return table


def _amended(heard: Heard) -> Mapping[str, int]:
    """In words: `none` is what nobody had noticed, or what is not there."""
    said: Counter[str] = Counter()
    for (edge, cloud), count in heard.amended.items():
        cloud = "nothing" if cloud == "none" else cloud
        agreed = edge == cloud or (edge == "none" and cloud == "nothing")
        said[f"also {cloud}" if agreed else f"unnoticed: {cloud}" if edge == "none" else f"no {edge}: {cloud}"] += count
    return said


def _note() -> RenderableType:
    return Text(
        "The clip goes round and round: what it shows comes again. In the cloud's place there is a second node on this "
        "machine, with a detector that is larger and knows 80 kinds of things.",
        style="dim",
    )


def _named(counts: Mapping[str, int], *, apart: str = ", ") -> str:
    """The most frequent ones."""
    told = Counter(counts).most_common(_MOST_NAMES)
    return apart.join(f"{name} {count:,}" for name, count in told) or "none"


def _bytes(count: int) -> str:
    return next((f"{count / size:.1f} {unit}" for unit, size in _UNITS.items() if count >= size), f"{count} B")
