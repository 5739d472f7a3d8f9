"""Which requests share a run: batching where it pays, nobody late for company, never an empty batch."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from runtime.serving.batching.forming import form
from runtime.serving.batching.line import Entry
from runtime.serving.batching.service_times import PAYS, ServiceTimes


def waiting(*expires_s: float, rows: int = 1, key: str = "") -> list[Entry]:
    return [Entry(rows=rows, key=key, level=2, since_s=0.0, expires_at_s=each) for each in expires_s]


def times_of(curve: Callable[[int], float], max_rows: int = 8) -> ServiceTimes:
    times = ServiceTimes(max_rows)
    for size in times.sizes:
        times.measured(size, curve(size))
    return times


PAYING, COSTING = times_of(lambda rows: 0.01 + 0.001 * rows), times_of(lambda rows: 0.01 * rows)


def test_it_batches_where_batching_pays_and_does_not_where_it_costs() -> None:
    assert len(form(iter(waiting(*[1.0] * 20)), PAYING, 0.0)) == 8
    assert len(form(iter(waiting(*[1.0] * 5)), PAYING, 0.0)) == 5
    assert len(form(iter(waiting(*[1.0] * 20)), COSTING, 0.0)) == 1
    dipping = times_of(lambda rows: {1: 0.01, 2: 0.012, 4: 0.03, 8: 0.08}[rows])
    assert len(form(iter(waiting(*[1.0] * 20)), dipping, 0.0)) == 2


def test_nobody_in_the_batch_is_made_late_by_company() -> None:
    # Two take 12 ms, 18 ms to be sure: the first has time for itself alone.
    assert len(form(iter(waiting(0.0166, 1.0, 1.0)), PAYING, 0.0)) == 1
    assert len(form(iter(waiting(0.0182, 1.0, 1.0)), PAYING, 0.0)) == 2


def test_other_keys_are_passed_over() -> None:
    mixed = [*waiting(1.0, key="a"), *waiting(1.0, key="b"), *waiting(1.0, key="a")]
    assert [each.key for each in form(iter(mixed), PAYING, 0.0)] == ["a", "a"]


def test_an_unknown_size_is_tried_one_doubling_at_a_time() -> None:
    times = ServiceTimes(8)
    times.measured(1, 0.01)
    for size in (2, 4, 8):
        assert len(form(iter(waiting(*[1.0] * 20)), times, 0.0)) == size
        times.observe(size, 0.01, 0.01)
    assert len(form(iter(waiting(*[1.0] * 20)), times, 0.0)) == 8


@given(
    st.lists(st.tuples(st.floats(0.001, 0.2), st.integers(1, 8), st.sampled_from("ab")), min_size=1, max_size=20),
    st.lists(st.floats(0.001, 0.1), min_size=4, max_size=4),
)
def test_every_batch_fits_is_of_one_key_led_by_the_head_in_time_and_never_worse_than_the_head_alone(
    asked: list[tuple[float, int, str]], seconds: list[float]
) -> None:
    times = times_of(lambda rows: seconds[rows.bit_length() - 1])
    line = [waiting(expires_s, rows=rows, key=key)[0] for expires_s, rows, key in sorted(asked)]
    batch = form(iter(line), times, 0.0)
    rows = sum(each.rows for each in batch)
    assert batch[0] is line[0]
    assert {each.key for each in batch} == {line[0].key}
    assert rows <= 8
    assert [each for each in line if any(each is one for one in batch)] == batch
    if len(batch) > 1:
        assert all(each.expires_at_s >= times.sure_s(rows) for each in batch)
        assert times.run_s(rows) / rows <= times.run_s(line[0].rows) / line[0].rows


def test_the_rest_of_a_batch_is_weighed_against_a_run_of_its_own() -> None:
    """Five take 15 ms, and four and one 25 ms: but a row of five is cheaper by a seventh only than one of four."""
    assert PAYING.run_s(5) / 5 > PAYS * PAYING.run_s(4) / 4 * 0.98
    assert len(form(iter(waiting(*[1.0] * 5)), PAYING, 0.0)) == 5
