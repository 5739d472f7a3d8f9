"""CUDA's driver interface through ctypes, as far as engines need it: which GPU this is, its memory, and one stream.

The driver brings `libcuda.so.1`, so that no CUDA toolkit and no Python package is needed. Names and constants are those
of cuda.h (https://docs.nvidia.com/cuda/cuda-driver-api/). Not measured: no GPU was at hand where this was written.
"""

from __future__ import annotations

import ctypes
from typing import Any

import msgspec

from contracts.errors import FoothillError
from runtime.serving.engines.tensors import Array

LIBRARY = "libcuda.so.1"
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_NAME_BYTES = 256


class CudaGpu(msgspec.Struct, frozen=True):
    """`sm` is the compute capability times ten, `driver` the newest CUDA the driver runs, such as `12.6`."""

    name: str
    sm: int
    sm_count: int
    memory_bytes: int
    driver: str


class CudaError(FoothillError):
    """A call of the driver failed: the GPU is lost, its memory is full, or an engine broke its context."""

    def __init__(self, call: str, status: int) -> None:
        super().__init__(
            "internal", f"CUDA's {call} failed with error {status}. See `dmesg`; if it stays so, restart the node."
        )


def open_library() -> Any | None:
    """None where no driver is installed."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def probe(library: Any | None = None) -> CudaGpu | None:
    """The first GPU; None where there is no driver or no GPU. No context is made, so no memory of the GPU is taken."""
    library = library or open_library()
    if library is None or library.cuInit(0) != 0:
        return None
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    name, memory, driver = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t(), ctypes.c_int()
    _call(library, "cuDeviceGetName", name, _NAME_BYTES, 0)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), 0)
    _call(library, "cuDriverGetVersion", ctypes.byref(driver))
    return CudaGpu(
        name=name.value.decode(errors="replace"),
        sm=_attribute(library, _MAJOR) * 10 + _attribute(library, _MINOR),
        sm_count=_attribute(library, _MULTIPROCESSORS),
        memory_bytes=memory.value,
        driver=f"{driver.value // 1000}.{driver.value % 1000 // 10}",
    )


class Cuda:
    """The primary context of the first GPU, which the CUDA runtime inside TensorRT shares, and one stream in it.

    Memory is handed out as addresses on the GPU. Every method but the constructor is called from one thread at a time.
    """

    def __init__(self, library: Any | None = None) -> None:
        """Raises CudaError, or FoothillError `unavailable` where no driver is installed."""
        self._library = library or open_library()
        if self._library is None:
            raise FoothillError("unavailable", f"{LIBRARY} is not installed here. Install NVIDIA's driver.")
        self._context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), 0)
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(stream), 1)
        self.stream = stream.value or 0

    def enter(self) -> None:
        """Binds the context to this thread. Threads come and go; it costs less than a microsecond to be sure."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def lock(self, size: int) -> int:
        """The address of page-locked memory of this machine, which the GPU reads and writes by itself."""
        pointer = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer.value or 0

    def unlock(self, address: int) -> None:
        self._call("cuMemFreeHost", ctypes.c_void_p(address))

    def upload(self, address: int, array: Array) -> None:
        """Queues a copy to the GPU of a C-contiguous array, which must live until `wait`."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, *self._extent(array))

    def download(self, array: Array, address: int) -> None:
        """Queues a copy into a C-contiguous array, which is filled after `wait`."""
        target = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), *self._extent(array))

    def wait(self) -> None:
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        self.enter()
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(self.stream))
        self._call("cuDevicePrimaryCtxRelease_v2", 0)

    def _extent(self, array: Array) -> tuple[ctypes.c_size_t, ctypes.c_void_p]:
        return ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream)

    def _call(self, name: str, *arguments: Any) -> None:
        _call(self._library, name, *arguments)


def _attribute(library: Any, attribute: int) -> int:
    value = ctypes.c_int()
    _call(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, 0)
    return value.value


def _call(library: Any, name: str, *arguments: Any) -> None:
    status = getattr(library, name)(*arguments)
    if status != 0:
        raise CudaError(name, status)
