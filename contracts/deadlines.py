"""The end-to-end deadline of a request, as a point on a monotonic clock."""

from __future__ import annotations

import msgspec

from contracts.errors import FoothillError


class Deadline(msgspec.Struct, frozen=True):
    """`expires_at_s` is on the clock that its owner passes in; it never leaves the process, only `left_ms` does."""

    expires_at_s: float

    @classmethod
    def after(cls, milliseconds: float, *, now_s: float) -> Deadline:
        return cls(now_s + milliseconds / 1000.0)

    def left_ms(self, now_s: float) -> float:
        return max(0.0, (self.expires_at_s - now_s) * 1000.0)

    def left_s(self, now_s: float) -> float:
        return max(0.0, self.expires_at_s - now_s)

    def check(self, now_s: float, doing: str) -> None:
        """Raises FoothillError `deadline_exceeded` when no time is left for the step named by `doing`."""
        if now_s >= self.expires_at_s:
            raise passed(doing)


def passed(doing: str) -> FoothillError:
    """No time is left for the step named by `doing`."""
    return FoothillError(
        "deadline_exceeded",
        f"The deadline passed before {doing}. Send a larger Foothill-Deadline-Ms, or ask a nearer node.",
    )
