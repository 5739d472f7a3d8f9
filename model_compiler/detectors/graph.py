"""A detector's graph as bundles want it: plain names, the outputs that its head reads and no others, a fixed size."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contracts.manifest import Preprocess

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,62}")
_STRANGE = re.compile(r"[^A-Za-z0-9_.\-]")


def fitted_graph(
    given: Path, model: Any, outputs: Sequence[str], pre: Preprocess, room: Path
) -> tuple[Path, dict[str, str]]:
    """Writes the onnx.ModelProto `model`, read from `given`, into `room`, with its one input and these `outputs` in
    this order; how each of them is called there."""
    import onnx

    graph = model.graph
    taken = set(_names(graph))
    (value,) = [each for each in graph.input if each.name not in {tensor.name for tensor in graph.initializer}]
    names: dict[str, str] = {}
    for name in (value.name, *outputs):
        names[name] = name if _PLAIN.fullmatch(name) else _plain(name, taken)
        taken.add(names[name])
    kept = {each.name: each for each in graph.output}
    del graph.output[:]
    for name in outputs:
        graph.output.append(kept[name])
        if names[name] != name:
            graph.output[-1].name = names[name]
            graph.node.append(onnx.helper.make_node("Identity", [name], [names[name]]))
    if names[value.name] != value.name:
        graph.node.insert(0, onnx.helper.make_node("Identity", [names[value.name]], [value.name]))
        value.name = names[value.name]
    _fix_size(value, pre)
    data = model.SerializeToString(deterministic=True)
    path = room / f"{given.stem[:48]}-{hashlib.sha256(data).hexdigest()[:16]}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path, names


def _fix_size(value: Any, pre: Preprocess) -> None:
    dims, first = value.type.tensor_type.shape.dim, 1 if pre.layout == "nhwc" else 2
    dims[first].dim_value, dims[first + 1].dim_value = pre.height, pre.width


def _plain(name: str, taken: set[str]) -> str:
    """Without TensorFlow's ":0", and without whatever else is in no file's name."""
    base = _STRANGE.sub("_", name.removesuffix(":0"))[:48]
    base = base if _PLAIN.fullmatch(base) else f"t_{base}"
    made, number = base, 2
    while made in taken:
        made, number = f"{base}_{number}", number + 1
    return made


def _names(graph: Any) -> Iterator[str]:
    """All names of tensors, also in the graphs within it."""
    for each in (*graph.input, *graph.output, *graph.initializer):
        yield each.name
    for node in graph.node:
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _names(inner)
