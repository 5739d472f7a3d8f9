"""How often something may happen: a token bucket without a clock of its own."""

from __future__ import annotations


class Rate:
    """`per_s` a second in the long run, and as many at once as come in one second (one at least).

    The generic cell rate algorithm (ITU-T I.371), which a bucket is in other words: one number of state.
    """

    def __init__(self, per_s: float) -> None:
        if per_s <= 0:
            raise ValueError(f"{per_s} a second never comes: use a rate above 0.")
        self._each_s = 1.0 / per_s
        self._burst_s = max(1.0, self._each_s)
        self._due_s = float("-inf")

    def take(self, now_s: float) -> float:
        """0 when one more may happen now; else the seconds until it may, and nothing is taken."""
        due_s = max(self._due_s, now_s) + self._each_s
        wait_s = due_s - now_s - self._burst_s
        # Sums of many steps are a little off; a wait that no clock shows is none.
        if wait_s > 1e-9:
            return wait_s
        self._due_s = due_s
        return 0.0
