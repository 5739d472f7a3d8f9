"""Page-locked memory for what goes to a GPU and comes back: one buffer a tensor, kept between runs."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from runtime.serving.engines.cuda import Cuda
from runtime.serving.engines.tensors import Array


class _Buffer(NamedTuple):
    address: int
    size: int


class Pinned:
    """Buffers by name, each as large as the largest array it has held. Used from one thread at a time."""

    def __init__(self, cuda: Cuda) -> None:
        """Takes `cuda` over, and closes it in its turn."""
        self._cuda = cuda
        self._buffers: dict[str, _Buffer] = {}

    @classmethod
    def open(cls) -> Pinned:
        """On the first GPU. Raises FoothillError `unavailable` where no driver is installed, CudaError."""
        return cls(Cuda())

    def array(self, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A view of the buffer: what it holds lasts until the name is asked for again. Raises CudaError."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._grown(name, size)
        block = (ctypes.c_char * max(size, 1)).from_address(buffer.address)
        view: Array = np.frombuffer(memoryview(block).cast("B"), np.uint8, size)
        return view.view(dtype).reshape(tuple(shape))

    def copy(self, name: str, array: Array) -> Array:
        """`array` in the buffer `name`."""
        view = self.array(name, array.shape, array.dtype)
        np.copyto(view, array)
        return view

    def empty(self) -> None:
        """Gives all buffers back. No view of them may be used any more."""
        for name in list(self._buffers):
            self._free(name)

    def close(self) -> None:
        self.empty()
        self._cuda.close()

    def _grown(self, name: str, size: int) -> _Buffer:
        self._cuda.enter()
        self._free(name)
        buffer = self._buffers[name] = _Buffer(self._cuda.lock(size), size)
        return buffer

    def _free(self, name: str) -> None:
        buffer = self._buffers.pop(name, None)
        if buffer is not None:
            self._cuda.enter()
            self._cuda.unlock(buffer.address)
