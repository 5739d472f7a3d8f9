"""What the fleet's views look like on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.messages import ModelReport
from fleet.api import GateView, ModelView, NodeView, RolloutView
from fleet.judging.ruling import Evidence

_COLOURS = {
    "online": "green",
    "active": "green",
    "completed": "green",
    "accept": "green",
    "offline": "red",
    "failed": "red",
    "rolled-back": "red",
    "reject": "red",
    "reverting": "yellow",
    "reverted": "yellow",
    "judging": "cyan",
    "staging": "cyan",
    "assigned": "cyan",
    "settling": "cyan",
    "healthy": "green",
    "halted": "red",
    "absent": "yellow",
}


def of_models(models: Sequence[ModelView]) -> RenderableType:
    table = _table("bundle", "model", "tier", "size", "accuracy", "digest")
    for model in models:
        measured = model.measurements.artifacts.values() if model.measurements else ()
        accuracy = ", ".join(f"{one.accuracy:.1%} of {one.samples}" for one in measured if one.accuracy is not None)
        reference = f"{model.name}@{model.version}"
        table.add_row(reference, model.model, model.tier, f"{model.bytes / 1e6:.2f} MB", accuracy, model.digest[:19])
    return table if models else Text("Nothing is published yet: foothill fleet model publish DIRECTORY")


def of_nodes(nodes: Sequence[NodeView]) -> RenderableType:
    table = _table("node", "region", "state", "URL", "target", "models")
    for node in nodes:
        models = ", ".join(f"{model} {_report(report)}" for model, report in sorted(node.reported.items()))
        table.add_row(node.node, node.region, _coloured(node.state), node.url, node.target, models)
    return table if nodes else Text("No node has joined yet: foothill fleet node enrol NAME --region R --lat X --lon Y")


def of_rollouts(rollouts: Iterable[RolloutView]) -> RenderableType:
    table = _table("rollout", "bundle", "state", "stage", "exposed", "back", "seconds", "reason")
    for view in rollouts:
        stage = f"{view.stage} of {len(view.stages)}"
        counts = f"{view.exposed_nodes} of {view.nodes}", str(view.reverted_nodes)
        table.add_row(view.id, view.bundle, _coloured(view.state), stage, *counts, _seconds(view.seconds), view.reason)
    return table


def of_rollout(view: RolloutView) -> RenderableType:
    """Stages and nodes, the gate, and the reason when there is one."""
    heading = Text.assemble(
        (view.bundle, "bold"), f"  {view.id}  ", _coloured(view.state), f"  stage {view.stage} of {len(view.stages)}"
    )
    table = _table("stage", "node", "state", "error")
    for number, names in enumerate(view.stages, start=1):
        for name in names:
            node = view.node_states[name]
            table.add_row(str(number), name, _coloured(node.phase), node.error)
    lines: list[RenderableType] = [heading, table]
    if view.paused:
        lines.append(Text("paused: nobody new is told", "yellow"))
    if view.holds:
        lines.append(Text(f"waits for {' and '.join(view.holds)}"))
    if view.gate is not None:
        lines += [Text.assemble("gate: ", _coloured(view.gate.decision)), _streams(view.gate)]
    if view.reason:
        lines.append(Text(view.reason, "red"))
    if view.seconds is not None:
        lines.append(Text(f"{_seconds(view.seconds)} s in all, {_seconds(view.seconds_to_revert)} to go back"))
    return Group(*lines)


def line_of(view: RolloutView) -> str:
    """One change in one line, for logs."""
    gate = f", gate: {_gate(view.gate)}" if view.gate is not None else ""
    reason = f": {view.reason}" if view.reason else ""
    counts = f"{len(view.active)} active and {view.reverted_nodes} back of {view.exposed_nodes} exposed"
    waits = f", waits for {' and '.join(view.holds)}" if view.holds else ""
    return f"{view.bundle} {view.state}, stage {view.stage} of {len(view.stages)}, {counts}{waits}{gate}{reason}"


def _streams(gate: GateView) -> Table:
    """What each test has seen, and when it would say no."""
    table = _table("stream", "seen", "as the old version", "bad", "log ratio", "says")
    for stream in gate.streams:
        known = f"at most {stream.p0:.2%}"
        if stream.stream == "disagreeing":
            known += f" ({gate.source})"
        ratio = f"{stream.llr:.2f}"
        table.add_row(stream.stream, _seen(stream), known, f"{stream.p1:.2%}", ratio, _coloured(stream.decision))
    return table


def _gate(gate: GateView) -> str:
    return f"{gate.decision} ({', '.join(f'{stream.stream} {_seen(stream)}' for stream in gate.streams)})"


def _seen(stream: Evidence) -> str:
    return f"{stream.k} of {stream.n}"


def _report(report: ModelReport) -> str:
    return f"{report.bundle or report.digest[7:19]} {report.phase}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def _coloured(state: str) -> Text:
    return Text(state, _COLOURS.get(state, ""))


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
