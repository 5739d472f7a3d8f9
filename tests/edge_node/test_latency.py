from __future__ import annotations

import pytest

from edge_node.latency import Latencies, LatencyRule, too_slow

RULE = LatencyRule(max_slowdown=10.0, deadline_ms=1000.0)


@pytest.mark.parametrize(
    ("own_ms", "served_ms", "against"),
    [
        (5.0, 1.0, ""),
        (11.0, 1.0, ""),
        (11.1, 1.0, "too slow"),
        (1.0, 0.001, ""),
        (999.0, None, ""),
        (1001.0, None, "have 1000 ms"),
        (1001.0, 900.0, "have 1000 ms"),
        (0.1, 5.0, ""),
    ],
)
def test_a_row_may_take_so_many_times_as_long_and_never_longer_than_a_request_waits(
    own_ms: float, served_ms: float | None, against: str
) -> None:
    found = too_slow(Latencies(own_ms, served_ms), RULE)
    assert against in found
    assert bool(found) == bool(against)


def test_both_times_are_told() -> None:
    assert str(Latencies(1.5, 0.5)) == "1.50 ms a row, 0.50 ms as it is served now"
    assert "nothing serves" in str(Latencies(1.5))
