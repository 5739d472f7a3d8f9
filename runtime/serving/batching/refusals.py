"""Why a request is not run: a reason for the metrics, and the error that its caller reads."""

from __future__ import annotations

from typing import Literal, get_args

from contracts.errors import FoothillError

Reason = Literal["full", "limit", "late", "no-time", "expired", "displaced", "gone", "closed"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_SOONEST_S = 0.001


class Refused(FoothillError):  # noqa: N818 - it names what happened
    """A request that is not run, or not waited for any more."""

    def __init__(self, reason: Reason, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return FoothillError.__reduce__(self)


def full(waiting: int, drained_s: float) -> Refused:
    """`drained_s`: until what waits now has run."""
    return Refused(
        "full",
        "overloaded",
        f"{waiting} requests wait for this model already. Try again later, or ask another node.",
        retry_after_s=max(_SOONEST_S, drained_s),
    )


def limited(limit: int, drained_s: float) -> Refused:
    return Refused(
        "limit",
        "overloaded",
        f"{limit} requests are at this model, and answers take longer than they used to. "
        "Try again later, or ask another node.",
        retry_after_s=max(_SOONEST_S, drained_s),
    )


def late(left_s: float, needed_s: float) -> Refused:
    """The queue is too long for this deadline; `needed_s - left_s` from now it no longer is, if nobody else comes."""
    return Refused(
        "late",
        "overloaded",
        f"This model would answer in about {needed_s * 1e3:.0f} ms, and {left_s * 1e3:.0f} ms are left. "
        "Try again later, send a larger Foothill-Deadline-Ms, or ask another node.",
        retry_after_s=max(_SOONEST_S, needed_s - left_s),
    )


def no_time(left_s: float, needed_s: float) -> Refused:
    """Not even an idle engine would be in time."""
    return Refused(
        "no-time",
        "deadline_exceeded",
        f"This model takes about {needed_s * 1e3:.1f} ms, and {left_s * 1e3:.1f} ms are left. "
        "Send a larger Foothill-Deadline-Ms, or ask a faster node.",
    )


def expired(doing: str) -> Refused:
    return Refused(
        "expired",
        "deadline_exceeded",
        f"The deadline passed before {doing}. Send a larger Foothill-Deadline-Ms, or ask a nearer or less busy node.",
    )


def displaced(drained_s: float) -> Refused:
    return Refused(
        "displaced",
        "overloaded",
        "The queue is full, and a request of a higher priority came. Try again later, or ask another node.",
        retry_after_s=max(_SOONEST_S, drained_s),
    )


def closed() -> Refused:
    return Refused("closed", "unavailable", "This model is being taken off this node. Try again, or ask another node.")
