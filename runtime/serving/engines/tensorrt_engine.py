"""TensorRT as an engine: one deserialized plan, its weights put back where they were stripped, its tensors checked.

Not measured: TensorRT needs a GPU to load anything, and none was at hand where this was written. Its order of calls is
held to by tests with a stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contracts.engines import EngineRecord, Kind
from contracts.errors import FoothillError
from contracts.manifest import TensorSpec
from runtime.serving.engines.cuda import Cuda
from runtime.serving.engines.pinned import Pinned
from runtime.serving.engines.tensorrt_builder import Listener
from runtime.serving.engines.tensorrt_errors import EngineRefused
from runtime.serving.engines.tensorrt_module import Installed, load
from runtime.serving.engines.tensors import NUMPY, Array


class Tensor(NamedTuple):
    """One input or output: its place on the GPU has room for the largest shape of the profile."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    address: int


class TensorRtEngine:
    """One engine file, ready to run for every shape of its profile. Closing it takes the CUDA context down with it."""

    concurrent = False

    def __init__(self, path: Path, record: EngineRecord, onnx: Path, *, installed: Installed, cuda: Cuda) -> None:
        """Raises EngineRefused for a file that the runtime does not take, CudaError when the GPU has no room for it.

        The caller vouches for the file: an engine is code, and a version-compatible one brings its own runtime.
        """
        self.provider = f"{installed.kind} {installed.version}"
        self._module, self._cuda = installed.module, cuda
        self._pinned = Pinned(cuda)
        self._told = Listener.of(self._module)
        self._tensors: list[Tensor] = []
        self._largest = {shapes.name: shapes.max for shapes in record.profile}
        cuda.enter()
        self._runtime = self._open_runtime(record)
        self._plan = self._deserialize(path)
        if record.weight_stripped:
            self._refit(onnx)
        self._context = self._plan.create_execution_context()
        if self._context is None:
            raise self._refused(f"{path.name} gives no execution context")
        try:
            self._make_room(path)
        except FoothillError:
            self._free()
            raise

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._cuda.enter()
        self._set_shapes({name: array.shape for name, array in inputs.items()})
        for tensor in self._tensors:
            if tensor.is_input:
                self._cuda.upload(tensor.address, self._pinned.copy(tensor.name, inputs[tensor.name]))
        if not self._context.execute_async_v3(self._cuda.stream):
            raise FoothillError("internal", f"TensorRT did not run the model: {self._told.words()}.")
        outputs = {
            one.name: self._pinned.array(one.name, self._shape(one.name), one.dtype)
            for one in self._tensors
            if not one.is_input
        }
        for tensor in self._tensors:
            if not tensor.is_input:
                self._cuda.download(outputs[tensor.name], tensor.address)
        self._cuda.wait()
        # The buffers are the next run's.
        return {name: array.copy() for name, array in outputs.items()}

    def check(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Raises EngineRefused where the engine's tensors are not those of the manifest."""
        found = {(one.name, one.is_input, one.dtype) for one in self._tensors}
        named = {(spec.name, True, NUMPY[spec.datatype]) for spec in inputs}
        named |= {(spec.name, False, NUMPY[spec.datatype]) for spec in outputs}
        if found != named:
            raise self._refused(f"its tensors are {_listed(found)}, in the manifest {_listed(named)}")

    def close(self) -> None:
        self._cuda.enter()
        del self._context, self._plan, self._runtime
        self._free()
        self._pinned.close()

    def _free(self) -> None:
        for tensor in self._tensors:
            self._cuda.free(tensor.address)
        self._pinned.empty()

    def _open_runtime(self, record: EngineRecord) -> Any:
        runtime = self._module.Runtime(self._told)
        if record.version_compatible:
            runtime.engine_host_code_allowed = True
        if record.dla_core is not None:
            runtime.DLA_core = record.dla_core
        return runtime

    def _deserialize(self, path: Path) -> Any:
        """A runtime that does not take a plan says so in its log, and gives nothing."""
        plan = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if plan is None:
            raise self._refused(f"{path.name} is not taken")
        return plan

    def _refit(self, onnx: Path) -> None:
        refitter = self._module.Refitter(self._plan, self._told)
        weights = self._module.OnnxParserRefitter(refitter, self._told)
        if not weights.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            raise self._refused(f"the weights of {onnx.name} cannot be put back")

    def _make_room(self, path: Path) -> None:
        """All memory is taken here, for the largest shapes, so that no request can run out of it."""
        input_mode = self._module.TensorIOMode.INPUT
        names = [self._plan.get_tensor_name(index) for index in range(self._plan.num_io_tensors)]
        inputs = [name for name in names if self._plan.get_tensor_mode(name) == input_mode]
        if set(inputs) != set(self._largest):
            raise self._refused(f"{path.name} has inputs {sorted(inputs)}, its record {sorted(self._largest)}")
        self._set_shapes(self._largest)
        for name in names:
            dtype = self._dtype(name)
            address = self._cuda.allocate(self._pinned.array(name, self._shape(name), dtype).nbytes)
            self._tensors.append(Tensor(name, name in inputs, dtype, address))
            if not self._context.set_tensor_address(name, address):
                raise self._refused(f"{path.name} takes no memory for {name}")

    def _dtype(self, name: str) -> np.dtype[Any]:
        try:
            dtype: np.dtype[Any] = np.dtype(self._module.nptype(self._plan.get_tensor_dtype(name)))
        except TypeError as error:
            raise self._refused(f"{name} is of a type that numpy does not have") from error
        return dtype

    def _set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise FoothillError("bad_tensor", f"{name} is {list(shape)}: outside what the engine was built for.")

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(name))
        if -1 in shape:
            raise self._refused(f"the size of {name} depends on values, which is not served")
        return shape

    def _refused(self, what: str) -> EngineRefused:
        return EngineRefused(f"{self.provider}: {what}: {self._told.words()}. It is built again from the ONNX file.")


def open_engine(kind: Kind, path: Path, record: EngineRecord, onnx: Path) -> TensorRtEngine:
    """An engine on the first GPU. Raises FoothillError as the class does, and `unavailable` without its runtime."""
    installed, cuda = load(kind), Cuda()
    try:
        return TensorRtEngine(path, record, onnx, installed=installed, cuda=cuda)
    except FoothillError:
        cuda.close()
        raise


def _listed(tensors: set[tuple[str, bool, np.dtype[Any]]]) -> str:
    return ", ".join(f"{name} {dtype}" for name, _, dtype in sorted(tensors, key=lambda one: one[0]))
