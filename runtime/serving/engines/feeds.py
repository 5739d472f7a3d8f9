"""How arrays get into a session of ONNX Runtime and out of it: as they lie, bound to page-locked memory on a GPU, or
packed to a type that numpy does not have."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from contracts.errors import FoothillError
from runtime.serving.engines.pinned import Pinned
from runtime.serving.engines.providers import ON_NVIDIA
from runtime.serving.engines.tensors import Array, packed_bf16, unpacked_bf16

BFLOAT16 = "tensor(bfloat16)"
_STRING = "tensor(string)"
_ONNX_BFLOAT16 = 16
"""TensorProto.DataType.BFLOAT16."""


class Feed(Protocol):
    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        """The outputs named, in their order. Raises what ONNX Runtime raises."""
        ...

    def close(self) -> None: ...


def feed_for(session: Any, open_pinned: Callable[[], Pinned]) -> Feed:
    """Page-locked where a GPU computes and numpy has all types of the model.

    Raises FoothillError `bad_bundle`, and what `open_pinned` raises.
    """
    on_gpu = any(provider in ON_NVIDIA for provider in session.get_providers())
    types = {tensor.type for tensor in (*session.get_inputs(), *session.get_outputs())}
    if BFLOAT16 in types:
        return Bf16Feed(session)
    return PinnedFeed(session, open_pinned()) if on_gpu and _STRING not in types else PlainFeed(session)


class PlainFeed:
    """The session reads arrays where they are. Best where the provider computes in the same memory."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        answers: Sequence[Array] = self._session.run(outputs, feeds, options)
        return answers

    def close(self) -> None:
        del self._session


class PinnedFeed:
    """Inputs go through page-locked buffers that are kept between runs, which a GPU reads without a copy by its driver.

    Outputs come back into new arrays: they outlive the run. Text cannot be bound.
    """

    def __init__(self, session: Any, pinned: Pinned) -> None:
        self._session = session
        self._pinned = pinned

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, self._pinned.copy(name, array))
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, options)
        answers: Sequence[Array] = binding.copy_outputs_to_cpu()
        return answers

    def close(self) -> None:
        del self._session
        self._pinned.close()


class Bf16Feed:
    """For a model with bfloat16 among its tensors, which are float32 outside (tensors.NUMPY).

    ONNX Runtime's binding makes no arrays of bfloat16: what comes out is read where it lies in memory.
    """

    def __init__(self, session: Any) -> None:
        """Raises FoothillError `bad_bundle` for text among the inputs, which only goes in as arrays."""
        if any(tensor.type == _STRING for tensor in session.get_inputs()):
            raise FoothillError("bad_bundle", "Text and BF16 are not served together. Give the artifact FP32 tensors.")
        self._session = session
        self._packed = {tensor.name for tensor in session.get_inputs() if tensor.type == BFLOAT16}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array], options: Any) -> Sequence[Array]:
        values = {name: self._value(name, array) for name, array in feeds.items()}
        return [_array(value) for value in self._session.run_with_ort_values(outputs, values, options)]

    def close(self) -> None:
        del self._session

    def _value(self, name: str, array: Array) -> Any:
        if name in self._packed:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(packed_bf16(array), _ONNX_BFLOAT16)
        return ort.OrtValue.ortvalue_from_numpy(array)


def _array(value: Any) -> Array:
    array: Array
    if value.data_type() != BFLOAT16:
        array = value.numpy()
        return array
    shape = value.shape()
    bits = (ctypes.c_uint16 * math.prod(shape)).from_address(value.data_ptr())
    array = unpacked_bf16(np.ctypeslib.as_array(bits)).reshape(shape)
    return array
