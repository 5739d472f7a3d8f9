"""What values a float model's tensors take on calibration samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats, Samples
from model_compiler.errors import CompileError
from model_compiler.progress import Advance, unwatched
from model_compiler.quantizing.prepare import load_prepared
from model_compiler.replay import Ends, open_engine
from runtime.serving.engines.onnx_engine import OnnxEngine

BINS = 2048
MEMORY_BYTES = 256 << 20
_MAX_ROWS = 64
_DEAD = 1e-30
"""Values all below it count as zero: the bins would be too narrow for float32."""

Counts = npt.NDArray[np.int64]


class Seen(msgspec.Struct, frozen=True):
    """One tensor over all samples. `histogram`: (BINS,) int64, equal bins from -m to m, m the largest magnitude.

    `channel_low`, `channel_high`: (channels,) float32 on axis 1 of a tensor of 4 or 5 axes, on the last of one of 2 or
    3; None where that axis has no fixed size.
    """

    low: float
    high: float
    histogram: Counts
    channel_low: Floats | None = None
    channel_high: Floats | None = None

    @property
    def largest(self) -> float:
        """The largest magnitude, half the width of the histogram."""
        return max(abs(self.low), abs(self.high))


class Observations(msgspec.Struct, frozen=True):
    """Every float activation of the prepared model by name, its input and what its nodes write, over `rows` samples."""

    tensors: dict[str, Seen]
    rows: int

    def save(self, path: Path) -> None:
        """Writes an .npz file that `load` reads."""
        arrays: dict[str, Any] = {
            "rows": np.array(self.rows),
            "names": np.array(list(self.tensors)),
            "ends": np.array([(seen.low, seen.high) for seen in self.tensors.values()], np.float64),
            "histograms": np.stack([seen.histogram for seen in self.tensors.values()]),
        }
        for index, seen in enumerate(self.tensors.values()):
            if seen.channel_low is not None and seen.channel_high is not None:
                arrays[f"channels_{index}"] = np.stack([seen.channel_low, seen.channel_high])
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Observations:
        with np.load(path) as file:
            channels = [
                file[key] if (key := f"channels_{index}") in file else None for index in range(len(file["names"]))
            ]
            return cls(
                {
                    str(name): Seen(float(low), float(high), histogram, *(() if ends is None else ends))
                    for name, (low, high), histogram, ends in zip(
                        file["names"], file["ends"], file["histograms"], channels, strict=True
                    )
                },
                int(file["rows"]),
            )


def observe(
    model: Path, samples: Samples, ends: Ends, *, advance: Advance = unwatched, memory_bytes: int = MEMORY_BYTES
) -> Observations:
    """Runs `samples` through the prepared `model` twice: once for the ends of each tensor, once for its histogram.

    Activations are kept for one batch at a time, of as many rows as fit into `memory_bytes`; a model that insists on a
    batch size gets the last batch filled up with the first samples. Raises CompileError that names the first tensor
    with a value that is not finite, or when there are no samples.
    """
    if not len(samples):
        raise CompileError("There are no calibration samples: give the quantizer at least a few dozen pictures.")
    proto = load_prepared(model)
    names, fixed = _with_all_outputs(proto), _fixed_batch(proto, ends.input)
    limits: dict[str, _Limits] = {}
    with TemporaryDirectory() as work:
        probed = Path(work) / "probed.onnx"
        probed.write_bytes(proto.SerializeToString())
        with closing(open_engine(probed)) as engine:
            probe = _Probe(engine, names, samples, ends.input, fixed, memory_bytes)
            for done, tensors in probe.runs():
                for name, values in tensors.items():
                    limits[name] = _widened(name, limits.get(name), values)
                advance(done / 2)
            histograms = {name: np.zeros(BINS, np.int64) for name in limits}
            for done, tensors in probe.runs():
                for name, values in tensors.items():
                    _count(histograms[name], values, limits[name].largest)
                advance(0.5 + done / 2)
    return Observations({name: each.seen(histograms[name]) for name, each in limits.items()}, len(samples))


class _Limits(msgspec.Struct, frozen=True):
    low: float
    high: float
    channels: tuple[Floats, Floats] | None

    @property
    def largest(self) -> float:
        return max(abs(self.low), abs(self.high))

    def seen(self, histogram: Counts) -> Seen:
        return Seen(self.low, self.high, histogram, *(self.channels or ()))


class _Probe(msgspec.Struct, frozen=True):
    """An engine that gives out every activation in `names`; `fixed` rows at a time, 0 for as many as memory takes."""

    engine: OnnxEngine
    names: list[str]
    samples: Samples
    input: str
    fixed: int
    memory_bytes: int

    def runs(self) -> Iterator[tuple[float, dict[str, Floats]]]:
        """The share of samples done, and each tensor's values for one batch (rows, ...) float32."""
        rows, start, step = len(self.samples), 0, self.fixed or 1
        while start < rows:
            chosen = np.arange(start, start + step)
            batch = self.samples.batch(chosen % rows if self.fixed else chosen[chosen < rows])
            outputs = self.engine.run({self.input: batch})
            tensors = {self.input: batch, **{name: outputs[name] for name in self.names}}
            start += len(batch)
            yield min(start / rows, 1.0), tensors
            if not self.fixed:
                row_bytes = sum(values.nbytes for values in tensors.values()) // len(batch)
                step = int(np.clip(self.memory_bytes // max(row_bytes, 1), 1, _MAX_ROWS))


def _with_all_outputs(model: Any) -> list[str]:
    """Makes every float tensor that a node writes an output; the names, in graph order."""
    import onnx

    graph = model.graph
    kinds = {value.name: value for value in (*graph.value_info, *graph.output)}
    written = [name for node in graph.node for name in node.output if name]
    floats = [
        name for name in written if name in kinds and kinds[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    present = {value.name for value in graph.output}
    graph.output.extend(kinds[name] for name in floats if name not in present)
    return floats


def _fixed_batch(model: Any, name: str) -> int:
    """The batch size that the model insists on, 0 where it takes any."""
    for value in model.graph.input:
        if value.name == name:
            return int(value.type.tensor_type.shape.dim[0].dim_value)
    raise CompileError(
        f"The model has no input {name!r}; it has {', '.join(value.name for value in model.graph.input)}."
    )


def _widened(name: str, before: _Limits | None, values: Floats) -> _Limits:
    channels = _channel_limits(values)
    low, high = (float(channels[0].min()), float(channels[1].max())) if channels else (0.0, 0.0)
    if channels is None and values.size:
        low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise CompileError(
            f"Tensor {name!r} takes values that are not finite on the calibration samples. Look for a division by "
            "zero or an overflow in the model before it, or for broken pictures."
        )
    if before is None:
        return _Limits(low, high, channels)
    if channels is not None and before.channels is not None and channels[0].shape == before.channels[0].shape:
        channels = np.minimum(channels[0], before.channels[0]), np.maximum(channels[1], before.channels[1])
    else:
        channels = None
    return _Limits(min(low, before.low), max(high, before.high), channels)


def _channel_limits(values: Floats) -> tuple[Floats, Floats] | None:
    if not 2 <= values.ndim <= 5 or not values.size:
        return None
    axis = 1 if values.ndim >= 4 else values.ndim - 1
    others = tuple(each for each in range(values.ndim) if each != axis)
    return values.min(axis=others), values.max(axis=others)


def _count(histogram: Counts, values: Floats, largest: float) -> None:
    """Adds `values` to BINS equal bins from -largest to largest, in place."""
    if largest < _DEAD:
        histogram[BINS // 2] += values.size
        return
    places = values.reshape(-1) * np.float32(BINS / 2 / largest)
    places += np.float32(BINS / 2)
    counts = np.bincount(places.astype(np.intp), minlength=BINS + 1)
    histogram += counts[:BINS]
    histogram[-1] += counts[BINS]  # the largest value itself
