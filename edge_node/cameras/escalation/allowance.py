"""How many bytes of one camera may leave the box: a bucket that fills evenly."""

from __future__ import annotations

_HOUR_S = 3600.0


class Allowance:
    """Full at the start, and holds an hour's worth at most. `now_s` is of a clock that never goes back."""

    def __init__(self, bytes_per_hour: int, now_s: float) -> None:
        self._most = float(bytes_per_hour)
        self._left = self._most
        self._last_s = now_s

    def take(self, size: int, now_s: float) -> bool:
        """Whether so many bytes may go; if so, they are gone."""
        self._left = min(self._most, self._left + (now_s - self._last_s) * self._most / _HOUR_S)
        self._last_s = now_s
        if size > self._left:
            return False
        self._left -= size
        return True
