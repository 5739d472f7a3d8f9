"""What values a float model's tensors take on calibration samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_compiler.data.samples import Floats, Samples
from model_compiler.errors import CompileError
from model_compiler.progress import Advance, unwatched
from model_compiler.quantizing.prepare import load_prepared
from model_compiler.replay import Ends

if TYPE_CHECKING:
    import onnxruntime

BINS = 2048
_BUDGET_BYTES = 256 << 20
_MAX_ROWS = 64

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
        arrays: dict[str, npt.NDArray[Any]] = {
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


def observe(model: Path, samples: Samples, ends: Ends, *, advance: Advance = unwatched) -> Observations:
    """Runs `samples` through the prepared `model` twice: once for the ends of each tensor, once for its histogram.

    Activations are kept for one batch at a time. Raises CompileError that names the first tensor with a value that is
    not finite, or when there are no samples.
    """
    if not len(samples):
        raise CompileError("There are no calibration samples: give the quantizer at least a few dozen pictures.")
    probe = _Probe(model, samples, ends)
    limits: dict[str, _Limits] = {}
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


class _Probe:
    """The prepared model with every float activation as an output, run over the samples in batches."""

    def __init__(self, model: Path, samples: Samples, ends: Ends) -> None:
        proto = load_prepared(model)
        self._names = _with_all_outputs(proto)
        self._samples, self._input = samples, ends.input
        self._fixed = _fixed_batch(proto, ends.input)
        self._session = _session(proto)

    def runs(self) -> Iterator[tuple[float, Mapping[str, Floats]]]:
        """The share of samples done, and each tensor's values for one batch (rows, ...) float32."""
        rows, step = len(self._samples), self._fixed or 1
        start = 0
        while start < rows:
            chosen = np.arange(start, start + step) % rows if self._fixed else np.arange(start, min(start + step, rows))
            batch = self._samples.batch(chosen)
            values = self._session.run(self._names, {self._input: np.ascontiguousarray(batch)})
            start += len(chosen)
            yield min(start / rows, 1.0), {self._input: batch, **dict(zip(self._names, values, strict=True))}
            if not self._fixed:
                step = _rows_that_fit(values, len(chosen))


def _rows_that_fit(values: list[Floats], rows: int) -> int:
    size = sum(each.nbytes for each in values) / rows
    return int(np.clip(_BUDGET_BYTES // max(size, 1), 1, _MAX_ROWS))


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


def _session(model: Any) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


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
    if largest == 0.0:
        histogram[BINS // 2] += values.size
        return
    places = (values.reshape(-1) * np.float32(BINS / 2 / largest) + np.float32(BINS / 2)).astype(np.int32)
    np.clip(places, 0, BINS - 1, out=places)
    histogram += np.bincount(places, minlength=BINS)
