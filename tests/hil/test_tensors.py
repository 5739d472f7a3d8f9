"""Tensors in the protocol's form and back, as a suite sends and reads them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from contracts.oip import OutputTensor
from hil import tensors


@pytest.mark.parametrize("datatype", tensors.NUMPY)
def test_what_is_sent_is_read_back(datatype: str) -> None:
    array = np.array(["a", "zwölf"] if datatype == "BYTES" else [1, 0], tensors.NUMPY[datatype])
    data = tensors.to_bytes(array, datatype)
    read = tensors.from_bytes(OutputTensor("x", datatype, (2,)), data)
    assert read.dtype == array.dtype
    assert read.tolist() == array.tolist()


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    data = tensors.to_bytes(np.array([1.5, -2.0], np.float32), "BF16")
    assert data == b"\xc0\x3f\x00\xc0"
    numbers = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    assert tensors.to_bytes(numbers, "BF16") == numbers.astype(ml_dtypes.bfloat16).tobytes()
    assert tensors.blank("BF16", [2]).dtype == np.float32
