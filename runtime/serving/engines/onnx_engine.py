"""ONNX Runtime as an engine: one session, its providers checked, its tensors checked against the manifest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as capi

from contracts import oip
from contracts.errors import FoothillError
from contracts.manifest import TensorSpec
from runtime.serving.engines import placements, providers
from runtime.serving.engines.engine import Interrupted
from runtime.serving.engines.feeds import BFLOAT16, feed_for
from runtime.serving.engines.kept_graph import GRAPH, WEIGHTS
from runtime.serving.engines.pinned import Pinned
from runtime.serving.engines.providers import CPU, ON_CPU, Options, Placement, Plan
from runtime.serving.engines.tensors import NUMPY, Array

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    BFLOAT16: oip.BF16,
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_MOST_PACKED = 1.5
"""So many times an artifact may its packed weights take."""
# The binding's exceptions share no base below Exception.
_FAILURES = (
    capi.Fail,
    capi.InvalidArgument,
    capi.InvalidGraph,
    capi.InvalidProtobuf,
    capi.EPFail,
    capi.NoSuchFile,
    capi.NotImplemented,
    capi.RuntimeException,
    RuntimeError,
    TypeError,
    ValueError,
)


class OnnxEngine:
    """One ONNX Runtime session. `threads` is the number of threads inside one operator.

    On CPUs alone runs may be under way in several threads at once: they share the weights and, beyond the thread that
    each is called from, the `threads` - 1 others.

    `provider` is the one that does the work, `placement` says how all is shared out. `literal` runs every operator as
    the file says, without fusing any: slower, for checks; and for graphs that were optimized before.
    """

    def __init__(self, path: Path, *, plan: Plan, threads: int, literal: bool = False) -> None:
        """Raises FoothillError `bad_bundle` for a file that does not load, or that the plan's provider does not run."""
        offered = providers.offered(plan, ort.get_available_providers(), path.name)
        options = partial(_options, threads, literal=literal)
        self._session, chain = _first_started(path, options, offered, fallback=plan.fallback)
        started = self._session.get_providers()
        providers.check_started(plan, started, path.name)
        self.placement = _placement(self._session, path, options, chain)
        providers.check_placement(plan, self.placement, path.name)
        self.provider: str = self.placement.computes or started[0]
        self._names = [output.name for output in self._session.get_outputs()]
        self.concurrent = started == [CPU]
        self._under_way: dict[int, ort.RunOptions] = {}
        self._feed = feed_for(self._session, Pinned.open)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feeds = {name: np.require(array, requirements=("C", "A")) for name, array in inputs.items()}
        thread, options = threading.get_ident(), ort.RunOptions()
        self._under_way[thread] = options
        try:
            outputs = self._feed.run(self._names, feeds, options)
        except capi.InvalidArgument as error:
            # Shapes and types were checked before: these values are outside what the model can take.
            raise FoothillError("bad_tensor", f"The model refuses these values: {_first_line(error)}.") from error
        except _FAILURES as error:
            if options.terminate:
                raise Interrupted from error
            raise FoothillError("internal", f"The engine failed: {_first_line(error)}.") from error
        finally:
            del self._under_way[thread]
        return dict(zip(self._names, outputs, strict=True))

    def interrupt(self, thread: int) -> None:
        """ONNX Runtime looks at this between two operators. Every run has options of its own."""
        options = self._under_way.get(thread)
        if options is not None:
            options.terminate = True

    def check(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Raises FoothillError `bad_bundle` where the file's tensors are not those of the manifest."""
        for what, specs, nodes in (
            ("input", inputs, self._session.get_inputs()),
            ("output", outputs, self._session.get_outputs()),
        ):
            found = {node.name: node for node in nodes}
            if set(found) != {spec.name for spec in specs}:
                raise _unlike(f"its {what}s are {sorted(found)}, in the manifest {sorted(s.name for s in specs)}")
            for spec in specs:
                _check_tensor(what, spec, found[spec.name])

    def close(self) -> None:
        self._feed.close()
        del self._session, self._feed


def write_optimized(path: Path, threads: int, directory: Path) -> None:
    """Leaves the graph of `path` in `directory` as a CPU session optimizes it, its weights in a file that is mapped.

    They are packed as the processor's kernels want them, where that does not take much more of the disk: some of
    ONNX Runtime's kernels want both forms. Raises FoothillError `bad_bundle`.
    https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html#offline-mode
    """
    _write_graph(path, threads, directory, packed=True)
    weights = directory / WEIGHTS
    if weights.exists() and weights.stat().st_size > _MOST_PACKED * path.stat().st_size:
        weights.unlink()
        _write_graph(path, threads, directory, packed=False)


def _write_graph(path: Path, threads: int, directory: Path, *, packed: bool) -> None:
    options = _options(threads, literal=False)
    options.optimized_model_filepath = str(directory / GRAPH)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", str(int(packed)))
    _start(path, options, ON_CPU.chain)


def _options(threads: int, *, literal: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A spinning pool takes the core that the event loop needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(placements.RECORD, "1")
    # Failures are raised; a caller must not be able to write into the log.
    options.log_severity_level = 4
    return options


def _start(path: Path, options: ort.SessionOptions, chain: Sequence[tuple[str, Options]]) -> Any:
    """Without `enable_fallback` a failing provider would be left out, and a run that fails tried again on the CPU."""
    named = [(name, dict(told)) for name, told in chain]
    try:
        return ort.InferenceSession(path, options, providers=named, enable_fallback=0)
    except _FAILURES as error:
        raise FoothillError("bad_bundle", f"ONNX Runtime does not load {path}: {_first_line(error)}.") from error


def _first_started(
    path: Path, options: Callable[[], ort.SessionOptions], chain: Sequence[tuple[str, Options]], *, fallback: bool
) -> tuple[Any, Sequence[tuple[str, Options]]]:
    """A session and its part of the chain. Some providers fail where their libraries are not there: with `fallback`
    the next one is asked."""
    try:
        return _start(path, options(), chain), chain
    except FoothillError:
        if not fallback or len(chain) == 1:
            raise
    return _first_started(path, options, chain[1:], fallback=fallback)


def _placement(
    session: Any, path: Path, options: Callable[[], ort.SessionOptions], chain: Sequence[tuple[str, Options]]
) -> Placement:
    found = placements.told(session) or placements.known(session.get_providers())
    if found is not None:
        return found

    def profiled(prefix: str) -> Any:
        watching = options()
        watching.enable_profiling, watching.profile_file_prefix = True, prefix
        return _start(path, watching, chain)

    return placements.watched(profiled, {kind: NUMPY[name] for kind, name in _DATATYPES.items()})


def _check_tensor(what: str, spec: TensorSpec, node: ort.NodeArg) -> None:
    datatype = _DATATYPES.get(node.type, node.type)
    if datatype != spec.datatype:
        raise _unlike(f"{what} {spec.name} is {datatype}, in the manifest {spec.datatype}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    if not _same_shape(shape, spec.shape):
        raise _unlike(f"{what} {spec.name} has shape {list(shape)}, in the manifest {list(spec.shape)}")


def _same_shape(found: Sequence[int], named: Sequence[int]) -> bool:
    """A dimension that the file leaves open may be any in the manifest; one that it fixes is fixed there too."""
    return len(found) == len(named) and all(size in (-1, want) for size, want in zip(found, named, strict=True))


def _unlike(what: str) -> FoothillError:
    return FoothillError("bad_bundle", f"The artifact is not what its manifest says: {what}. Compile it again.")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
