"""How much of a request's time one node may take."""

from __future__ import annotations

from typing import Final

_EXPECTED_FACTOR: Final = 3.0
_EXPECTED_SLACK_MS: Final = 100.0


def share_ms(expected_ms: float, left_ms: float, *, well: bool = True, owed: bool = False) -> float:
    """What one node that needs `expected_ms` may take of what is left of a deadline.

    Half of it, so that a node that stalls leaves time for another; more where the node needs more, unless some of it is
    `owed` to the cloud; only what it needs where it has failed of late, and is not known to be `well` again.
    """
    needed_ms = _EXPECTED_FACTOR * expected_ms + _EXPECTED_SLACK_MS
    if needed_ms < left_ms / 2:
        return left_ms / 2 if well else needed_ms
    return left_ms / 2 if owed else min(left_ms, needed_ms)
