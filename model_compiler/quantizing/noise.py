"""The noise of rounding: at each tensor, and at the answers when one place alone is rounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from model_compiler.data.samples import Floats, Samples
from model_compiler.quantizing.graph import Graph
from model_compiler.quantizing.places import Place, Rounding
from model_compiler.quantizing.sqnr import CEILING_DB, Noise, sqnr_db
from model_compiler.replay import Ends, all_outputs_of, open_engine

_PROBED_ROWS = 8
"""Rows at a time where every tensor is read: all of them lie in memory together."""


class Local(msgspec.Struct, frozen=True):
    """SQNR in dB, the mean over channels: `simulated` with this tensor alone rounded, `real` in the int8 file."""

    simulated: float
    real: float


def local_noise(
    fp32: Graph, int8: Graph, places: Sequence[Place], samples: Samples, ends: Ends, work: Path, *, literal: bool
) -> list[Local]:
    """Per place, on all `samples`, at its first tensor; where only weights are rounded, of the weights."""
    roundings = [place.roundings[0] for place in places if place.roundings]
    simulated, real = [Noise() for _ in roundings], [Noise() for _ in roundings]
    exact, got = work / "exact.onnx", work / "rounded.onnx"
    _expose(fp32, [each.tensor for each in roundings], exact)
    _expose(int8, [each.read for each in roundings], got)
    with closing(open_engine(exact)) as one, closing(open_engine(got, literal=literal)) as other:
        for batch in _batches(samples, ends):
            wanted, rounded = one.run({ends.input: batch}), other.run({ends.input: batch})
            for index, each in enumerate(roundings):
                values = batch if each.tensor == ends.input else wanted[each.tensor]
                simulated[index].add(values, each(values))
                real[index].add(values, rounded[each.read])
    measured = iter([Local(one.channel_db, other.channel_db) for one, other in zip(simulated, real, strict=True)])
    return [next(measured) if place.roundings else _weight_noise(fp32, place) for place in places]


def answer_noise(fp32: Graph, places: Sequence[Place], samples: Samples, ends: Ends, work: Path) -> Iterator[float]:
    """Per place, the SQNR of the float model's answers in dB with that place alone rounded; the mean over outputs."""
    rounded = work / "alone.onnx"
    round_alone(fp32, (), rounded)
    wanted = all_outputs_of(rounded, samples, ends)
    for place in places:
        round_alone(fp32, (place,), rounded)
        yield answers_db(wanted, all_outputs_of(rounded, samples, ends))


def answers_db(wanted: Mapping[str, Floats], got: Mapping[str, Floats]) -> float:
    """The mean SQNR over a model's outputs."""
    return float(np.mean([sqnr_db(values, got[name]) for name, values in wanted.items()]))


def round_alone(fp32: Graph, places: Sequence[Place], out: Path) -> None:
    """Writes the float model with the roundings of `places`, and no others, put into it."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(fp32.model)
    graph = Graph(model)
    for place in places:
        for weight, values in place.weights.items():
            graph.set_constant(weight, values)
        for rounding in place.roundings:
            _insert(graph, rounding)
    out.write_bytes(model.SerializeToString())


def _insert(graph: Graph, rounding: Rounding) -> None:
    """QuantizeLinear and DequantizeLinear between whoever writes a tensor and all that take it."""
    from onnx import helper

    tensor, nodes = rounding.tensor, graph.model.graph.node
    levels, scale, zero_point = (f"{tensor}/{end}" for end in ("levels", "scale", "zero_point"))
    graph.add_constant(scale, rounding.scale)
    graph.add_constant(zero_point, rounding.zero_point)
    writer = graph.producer(tensor)
    if writer is None:
        before, after, place = tensor, f"{tensor}/rounded", 0
        _rename([taker.input for taker in graph.consumers(tensor)], before, after)
    else:
        before, after, place = f"{tensor}/exact", tensor, 1 + [node.name for node in nodes].index(writer.name)
        _rename([writer.output], tensor, before)
    for kind, taken, written in (("DequantizeLinear", levels, after), ("QuantizeLinear", before, levels)):
        nodes.insert(place, helper.make_node(kind, [taken, scale, zero_point], [written], name=f"{tensor}/{kind}"))


def _rename(lists: Iterable[MutableSequence[str]], before: str, after: str) -> None:
    for names in lists:
        for index, name in enumerate(names):
            if name == before:
                names[index] = after


def _expose(graph: Graph, tensors: Sequence[str], out: Path) -> None:
    """Writes the model with `tensors` as outputs too."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    present = {*graph.outputs, *(value.name for value in model.graph.input)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in present)
    out.write_bytes(model.SerializeToString())


def _weight_noise(fp32: Graph, place: Place) -> Local:
    """Of the weights, output channel by output channel: the same in simulation and in the file."""
    worst = CEILING_DB
    for name, rounded in place.weights.items():
        values, noise = fp32.constant(name), Noise()
        assert values is not None
        noise.add(np.moveaxis(values, 0, -1), np.moveaxis(rounded, 0, -1))
        worst = min(worst, noise.channel_db)
    return Local(worst, worst)


def _batches(samples: Samples, ends: Ends) -> Iterator[Floats]:
    rows = ends.batch or _PROBED_ROWS
    for start in range(0, len(samples) - len(samples) % rows if ends.batch else len(samples), rows):
        yield samples.batch(np.arange(start, min(start + rows, len(samples))))
