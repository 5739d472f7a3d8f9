"""Running estimates of times, for rules that must not wait for perfect knowledge."""

from __future__ import annotations


class Fading:
    """An exponentially weighted mean that fades to 0 when nothing measures it any more (half-life in seconds).

    It fades so that one bad minute, after which nothing is sent there, cannot forbid sending for ever.
    """

    def __init__(self, *, half_life_s: float, smoothing: float = 0.2) -> None:
        self._half_life_s = half_life_s
        self._smoothing = smoothing
        self._value: float | None = None
        self._at_s = 0.0

    def value(self, now_s: float) -> float:
        """0 as long as nothing was measured."""
        if self._value is None:
            return 0.0
        return float(self._value * 0.5 ** (max(0.0, now_s - self._at_s) / self._half_life_s))

    def measure(self, value: float, now_s: float) -> None:
        before = value if self._value is None else self.value(now_s)
        self._set(before + self._smoothing * (value - before), now_s)

    def replace(self, value: float, now_s: float) -> None:
        """The newest value is the whole truth, until it fades."""
        self._set(value, now_s)

    def at_least(self, value: float, now_s: float) -> None:
        """What was given up at `value` would have been more still."""
        self._set(max(value, self.value(now_s)), now_s)

    def _set(self, value: float, now_s: float) -> None:
        self._value, self._at_s = value, now_s


class Samples:
    """The mean of the last `memory` samples or so."""

    __slots__ = ("_memory", "count", "mean")

    def __init__(self, *, memory: int = 50) -> None:
        self._memory = memory
        self.mean = 0.0
        self.count = 0

    def measure(self, sample: float) -> None:
        self.count = min(self.count + 1, self._memory)
        self.mean += (sample - self.mean) / self.count

    def shrunk(self, prior: float, weight: float = 5.0) -> float:
        """The mean pulled towards a prior that counts as `weight` samples.

        (weight * prior + n * sample mean) / (weight + n), the posterior mean of a normal with known variances.
        """
        return (weight * prior + self.count * self.mean) / (weight + self.count)


class Shrunk(Samples):
    """A mean of samples with a prior of its own."""

    __slots__ = ("_prior", "_weight")

    def __init__(self, prior: float, *, weight: float = 5.0, memory: int = 50) -> None:
        super().__init__(memory=memory)
        self._prior = prior
        self._weight = weight

    def value(self) -> float:
        return self.shrunk(self._prior, self._weight)


class Quantile:
    """The `share` quantile of a ratio that is about 1, by stochastic approximation, kept in 1..`most`.

    Robbins and Monro 1951, "A Stochastic Approximation Method", example of a quantile.
    """

    def __init__(self, share: float, *, first: float = 1.5, step: float = 0.05, most: float = 8.0) -> None:
        self.value = first
        self._up, self._down = step * share, step * (share - 1.0)
        self._most = most

    def measure(self, ratio: float) -> None:
        moved = self.value + (self._up if ratio > self.value else self._down)
        self.value = min(self._most, max(1.0, moved))
