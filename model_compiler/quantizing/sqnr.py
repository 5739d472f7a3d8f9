"""Signal to quantization noise, in decibels: how much of a tensor is left after rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Values = npt.NDArray[np.generic]

CEILING_DB = 120.0
"""What equal tensors get: float32 itself holds no more. A tensor of noise alone gets minus as much."""


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two powers or energies, within +-CEILING_DB; the ceiling where there is no noise."""
    if noise <= 0.0:
        return CEILING_DB
    if signal <= 0.0:
        return -CEILING_DB
    return float(np.clip(10 * np.log10(signal / noise), -CEILING_DB, CEILING_DB))


def sqnr_db(wanted: Values, got: Values) -> float:
    """Of `got` against `wanted`, same shape, over all elements."""
    exact = wanted.astype(np.float64)
    return decibels(float(np.square(exact).sum()), float(np.square(exact - got.astype(np.float64)).sum()))


class Noise:
    """Energies of a tensor and of its error, batch by batch and channel by channel.

    A tensor with one loud channel is rounded well by the sum over all elements, and every other channel is lost:
    hence `channel_db` beside `total_db`.
    """

    def __init__(self) -> None:
        self._signal = self._noise = np.zeros(0)

    def add(self, wanted: Values, got: Values) -> None:
        """Two of the same shape; channels lie on axis 1 of 4 or more axes, else on the last."""
        exact = wanted.astype(np.float64)
        signal, noise = _energies(exact), _energies(exact - got.astype(np.float64))
        if len(self._signal) != len(signal):
            self._signal, self._noise = np.zeros(len(signal)), np.zeros(len(signal))
        self._signal, self._noise = self._signal + signal, self._noise + noise

    @property
    def total_db(self) -> float:
        return decibels(float(self._signal.sum()), float(self._noise.sum()))

    @property
    def channel_db(self) -> float:
        """The mean over the channels that carry anything; the ceiling where none does."""
        alive = self._signal > 0
        pairs = zip(self._signal[alive], self._noise[alive], strict=True)
        each = [decibels(float(signal), float(noise)) for signal, noise in pairs]
        return float(np.mean(each)) if each else CEILING_DB


def _energies(values: Doubles) -> Doubles:
    """Per channel; (1,) for a tensor without channels."""
    if values.ndim < 2:
        return np.asarray([np.square(values).sum()])
    channels = 1 if values.ndim >= 4 else values.ndim - 1
    return np.asarray(np.square(values).sum(axis=tuple(axis for axis in range(values.ndim) if axis != channels)))
