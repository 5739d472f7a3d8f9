"""A GPU without a GPU: libcuda whose device memory is this process's, and TensorRT's runtime over it.

An engine file is JSON: `{"version", "weights"}`. The network is one matrix: logits = flattened image @ weights.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.runtime.serving.fake_tensorrt import ILogger, Severity

OUT_OF_MEMORY = 2


class FakeLibcuda:
    """The driver's calls. `fails` maps a call to the status it then gives; `alive` are addresses not yet freed, and
    `locked` those of page-locked memory."""

    def __init__(self, *, sm: tuple[int, int] = (8, 9), sm_count: int = 128, gpus: int = 1) -> None:
        self.fails: dict[str, int] = {}
        self.alive: dict[int, Any] = {}
        self.locked: dict[int, Any] = {}
        self.contexts = 0
        self.entered: set[int] = set()
        self.streams = 0
        self._attributes = {16: sm_count, 75: sm[0], 76: sm[1]}
        self._gpus = gpus

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        call = getattr(self, f"do_{name}", lambda *_: None)
        return lambda *arguments: self.fails.get(name) or call(*arguments) or 0

    def do_cuDeviceGetCount(self, count: Any) -> None:  # noqa: N802 - the driver's name, and so below
        count._obj.value = self._gpus

    def do_cuDeviceGetName(self, name: Any, _size: int, _device: int) -> None:  # noqa: N802
        name.value = b"NVIDIA Test GPU"

    def do_cuDeviceTotalMem_v2(self, memory: Any, _device: int) -> None:  # noqa: N802
        memory._obj.value = 24 << 30

    def do_cuDriverGetVersion(self, version: Any) -> None:  # noqa: N802
        version._obj.value = 12060

    def do_cuDeviceGetAttribute(self, value: Any, attribute: int, _device: int) -> None:  # noqa: N802
        value._obj.value = self._attributes[attribute]

    def do_cuDevicePrimaryCtxRetain(self, context: Any, _device: int) -> None:  # noqa: N802
        context._obj.value = 77
        self.contexts += 1

    def do_cuDevicePrimaryCtxRelease_v2(self, _device: int) -> None:  # noqa: N802
        self.contexts -= 1

    def do_cuStreamCreate(self, stream: Any, _flags: int) -> None:  # noqa: N802
        stream._obj.value = 99
        self.streams += 1

    def do_cuStreamDestroy_v2(self, _stream: Any) -> None:  # noqa: N802
        self.streams -= 1

    def do_cuMemAlloc_v2(self, pointer: Any, size: Any) -> None:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(block)
        self.alive[pointer._obj.value] = block

    def do_cuMemFree_v2(self, address: Any) -> None:  # noqa: N802
        del self.alive[address.value]

    def do_cuMemAllocHost_v2(self, pointer: Any, size: Any) -> None:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(block)
        self.locked[pointer._obj.value] = block

    def do_cuMemFreeHost(self, address: Any) -> None:  # noqa: N802
        del self.locked[address.value]

    def do_cuMemcpyHtoDAsync_v2(self, address: Any, source: Any, size: Any, _stream: Any) -> None:  # noqa: N802
        assert size.value <= len(self.alive[address.value])
        ctypes.memmove(address.value, source.value, size.value)

    def do_cuMemcpyDtoHAsync_v2(self, target: Any, address: Any, size: Any, _stream: Any) -> None:  # noqa: N802
        assert size.value <= len(self.alive[address.value])
        ctypes.memmove(target.value, address.value, size.value)


class Mode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class FakeTrtRuntime:
    """The half of the module that runs engines. `skew` is added to every logit, `stalls` is called in every run."""

    TensorIOMode = Mode
    ILogger = ILogger

    def __init__(self, version: str = "10.3.0") -> None:
        self.__version__ = version
        self.skew = 0.0
        self.stalls: Any = lambda: None
        self.runs_fail = False
        self.host_code: list[bool] = []
        self.refitted: list[str] = []
        self.refits = True

    @staticmethod
    def nptype(dtype: str) -> Any:
        return np.dtype(dtype)

    def Runtime(self, log: Any) -> Any:  # noqa: N802 - NVIDIA's name
        return _Runtime(self, log)

    def Refitter(self, plan: _Plan, log: Any) -> Any:  # noqa: N802 - NVIDIA's name
        return _Refitter(self, plan)

    def OnnxParserRefitter(self, refitter: _Refitter, log: Any) -> Any:  # noqa: N802 - NVIDIA's name
        return refitter


def plan_file(path: Path, weights: Any, *, version: str = "10.3.0", dtype: str = "float32") -> bytes:
    data = json.dumps({"version": version, "weights": np.asarray(weights).tolist(), "dtype": dtype}).encode()
    path.write_bytes(data)
    return data


class _Refitter:
    def __init__(self, module: FakeTrtRuntime, plan: _Plan) -> None:
        self._module, self._plan = module, plan

    def refit_from_file(self, path: str) -> bool:
        self._module.refitted.append(path)
        return self._module.refits

    def refit_cuda_engine(self) -> bool:
        self._plan.has_weights = True
        return True


class _Runtime:
    def __init__(self, module: FakeTrtRuntime, log: Any) -> None:
        self._module, self._log = module, log
        self.engine_host_code_allowed = False
        self.DLA_core = -1

    def deserialize_cuda_engine(self, data: bytes) -> _Plan | None:
        self._module.host_code.append(self.engine_host_code_allowed)
        told = json.loads(data)
        if told["version"] != self._module.__version__:
            self._log.log(Severity.ERROR, "Error Code 6: the engine plan file is not compatible with this version")
            return None
        return _Plan(self._module, np.array(told["weights"], np.float32), told["dtype"])


class _Plan:
    num_io_tensors = 2

    def __init__(self, module: FakeTrtRuntime, weights: Any, dtype: str) -> None:
        self._module, self.weights, self._dtype = module, weights, dtype
        self.has_weights = True

    def create_execution_context(self) -> _Context:
        return _Context(self._module, self)

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "image" else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return self._dtype


class _Context:
    def __init__(self, module: FakeTrtRuntime, plan: _Plan) -> None:
        self._module, self._plan = module, plan
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return name == "image" and math.prod(shape[1:]) == len(self._plan.weights) and shape[0] <= 32

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape if name == "image" else (self._shape[0], self._plan.weights.shape[1])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 99
        self._module.stalls()
        if self._module.runs_fail:
            return False
        image = _on_device(self._addresses["image"], self._shape)
        logits = _on_device(self._addresses["logits"], self.get_tensor_shape("logits"))
        logits[:] = image.reshape(len(image), -1) @ self._plan.weights + self._module.skew
        return True


def _on_device(address: int, shape: tuple[int, ...]) -> Any:
    floats = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(floats, shape)
