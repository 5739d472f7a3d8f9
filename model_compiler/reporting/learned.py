"""The report's section on learning: what was pruned, which ways of distilling were tried, what was trained."""

from __future__ import annotations

from model_compiler.reporting import captions, words
from model_compiler.reporting.findings import CompileReport, LayerPruned, Learning, Pruning, Size, Training, WayTried
from model_compiler.reporting.markup import Column, Html, bar, element, join, name, paragraph, table
from model_compiler.reporting.sections import absent, folded, loses, part, section


def learning(report: CompileReport) -> Html:
    found = report.learning
    if not isinstance(found, Learning):
        return section("learning", "Learning", absent(found))
    return section(
        "learning",
        "Learning",
        part("Pruning", _pruning(found.pruning) if isinstance(found.pruning, Pruning) else absent(found.pruning)),
        part("Distilling", _ways(found)) if found.ways else "",
        part("Training", _training(found.training) if isinstance(found.training, Training) else absent(found.training)),
        loses(captions.learning_loses(found)),
    )


def _pruning(found: Pruning) -> Html:
    about = f"By {found.method}: {words.percent(found.asked, 0)} of the channels asked for, "
    about += f"{words.percent(found.reached, 0)} of those that can go went."
    if found.method == "unstructured":
        about = (
            f"Unstructured: {words.percent(found.reached, 0)} of the weights are zero. That is smaller when "
            "compressed, and not faster: zeros are stored and multiplied like any other number."
        )
    return join((paragraph(about), _sizes(found.before, found.after), _layers(found), _whole(found)))


def _sizes(before: Size, after: Size) -> Html:
    rows = [
        _counted("Weights", before.weights, after.weights),
        _counted("Weights that are not 0", before.nonzero, after.nonzero),
        _counted("Multiply-adds for one sample", before.multiply_adds, after.multiply_adds),
        _sized("Size as stored", before.bytes, after.bytes),
        _sized("Size compressed", before.compressed_bytes, after.compressed_bytes),
    ]
    columns = (Column(""), Column("Before", "number"), Column("After", "number"), Column("Left", "number"))
    return table(columns, rows)


def _counted(title: str, before: int, after: int) -> tuple[str, ...]:
    return title, words.number(before), words.number(after), _left(before, after)


def _sized(title: str, before: int, after: int) -> tuple[str, ...]:
    unit, (stored, left) = words.size_column((before, after))
    return f"{title}, {unit}", stored, left, _left(before, after)


def _left(before: float, after: float) -> str:
    return words.percent(after / before) if before else "–"


def _layers(found: Pruning) -> Html:
    if not found.layers:
        return Html()
    most = max(each.before for each in found.layers) or 1
    what = "Weights that are not 0" if found.method == "unstructured" else "Channels"
    columns = (Column("Layer", "name"), Column(f"{what} before", "number"), Column("After", "number"), Column("Left"))
    rows = [
        (
            _along(each),
            words.number(each.before),
            words.number(each.after),
            bar(each.after / most, each.before / most),
        )
        for each in found.layers
    ]
    return folded(f"{what} of {words.counted(len(rows), 'layer')}", table(columns, rows), opened=len(rows) <= 12)


def _along(each: LayerPruned) -> Html:
    if each.layers <= 1:
        return name(each.layer)
    others = words.counted(each.layers - 1, "layer")
    return join((name(each.layer), element("small", f"and {others} that go with it")))


def _whole(found: Pruning) -> Html:
    if not found.whole:
        return Html()
    columns = (Column("Layer", "name"), Column("Channels", "number"), Column("Why it keeps them"))
    rows = [(name(each.layer), words.number(each.channels), each.why) for each in found.whole]
    return folded(f"{words.counted(len(rows), 'layer')} kept whole", table(columns, rows), opened=False)


def _ways(found: Learning) -> Html:
    columns = (Column("Way"), Column("Validation, %", "number"), Column("Paper"))
    ordered = sorted(found.ways, key=lambda way: (-way.validation, way.way))
    rows = [
        (_way(each, found), words.number(100 * each.validation, 2), each.paper or _paper(each, found))
        for each in ordered
    ]
    return join(
        (
            paragraph(captions.ways_show(found)),
            table(columns, rows, marked=["chosen" if each.winner else "" for each in ordered]),
        )
    )


def _way(each: WayTried, found: Learning) -> str:
    told = [text for text, true in (("winner", each.winner), ("control", each.way == found.control)) if true]
    return join((each.way, element("small", ", ".join(told)))) if told else each.way


def _paper(each: WayTried, found: Learning) -> str:
    return "learns from the labels alone" if each.way == found.control else "–"


def _training(found: Training) -> Html:
    ends = f"; {words.percent(found.validation, 2)} on validation" if found.validation is not None else ""
    return paragraph(
        f"{found.way}: {words.counted(found.epochs, 'epoch')} over {words.counted(found.samples, 'sample')}{ends}. "
        f"{found.note}"
    )
