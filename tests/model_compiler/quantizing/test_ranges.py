"""From observations to ranges: never without zero, never wider than what was seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.quantizing.observe import BINS, Observations, Seen
from model_compiler.quantizing.ranges import (
    METHODS,
    Method,
    Range,
    Table,
    decode,
    encode,
    entropy,
    minmax,
    percentile,
    table_of,
)

Doubles = npt.NDArray[np.float64]

tensors = arrays(
    np.float32,
    st.integers(1, 300),
    elements=st.floats(-1000, 1000, width=32).map(lambda x: np.float32(x if abs(x) > 1e-9 else 0)),
)
methods = st.sampled_from(METHODS)
few = settings(max_examples=30, deadline=None)


def seen(values: Floats) -> Seen:
    largest = float(np.abs(values).max()) or 1.0
    histogram = np.histogram(values, bins=BINS, range=(-largest, largest))[0].astype(np.int64)
    return Seen(float(values.min()), float(values.max()), histogram)


def only(values: Floats, method: Method) -> Range:
    return table_of(Observations({"t": seen(values)}, 1), method).ranges["t"]


@few
@given(tensors, methods)
def test_a_range_holds_zero_and_nothing_that_was_not_seen(values: Floats, method: Method) -> None:
    found, widest = only(values, method), minmax(seen(values))
    assert widest.low <= found.low <= 0 <= found.high <= widest.high


@few
@given(tensors)
def test_minmax_holds_all_that_was_seen(values: Floats) -> None:
    found = only(values, "minmax")
    assert found.low <= values.min()
    assert found.high >= values.max()


@few
@given(tensors, methods)
def test_what_relu_wrote_starts_at_zero(values: Floats, method: Method) -> None:
    assert only(np.maximum(values, 0), method).low == 0.0


@few
@given(tensors, methods)
def test_a_mirrored_tensor_has_a_mirrored_range(values: Floats, method: Method) -> None:
    found, mirrored = only(values, method), only(-values, method)
    step = 2 * float(np.abs(values).max()) / BINS
    assert mirrored.high == pytest.approx(-found.low, abs=step * 1.01)


def test_percentile_cuts_rare_values_and_minmax_does_not() -> None:
    values = np.concatenate([np.linspace(-1, 1, 99_999), [50.0]]).astype(np.float32)
    assert minmax(seen(values)) == Range(-1.0, 50.0)
    cut = percentile(seen(values))
    assert cut.high == pytest.approx(1.0, abs=0.06)
    assert cut.low == pytest.approx(-1.0, abs=0.06)


def test_percentile_leaves_the_share_outside() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    cut = percentile(seen(values), 99.0)
    outside = ((values < cut.low) | (values > cut.high)).mean()
    assert outside == pytest.approx(0.02, abs=0.002)


def test_entropy_keeps_a_flat_distribution_whole() -> None:
    values = np.linspace(0, 1, 50_000).astype(np.float32)
    assert entropy(seen(values)).high == pytest.approx(1.0, abs=0.02)


def test_entropy_cuts_a_long_thin_tail() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(200_000), rng.uniform(20, 40, 20)]).astype(np.float32)
    found = entropy(seen(values))
    assert 3.5 < found.high < 15


@few
@given(st.integers(0, 2**32 - 1), st.integers(20, 20_000), st.floats(1.5, 8))
def test_the_cut_is_where_the_plain_computation_has_it(seed: int, size: int, freedom: float) -> None:
    values = np.random.default_rng(seed).standard_t(freedom, size).astype(np.float32)
    observed = seen(values)
    magnitudes = (observed.histogram[BINS // 2 :] + observed.histogram[BINS // 2 - 1 :: -1]).astype(np.float64)
    magnitudes[0] = magnitudes[1]
    limit = max(entropy(observed).high, -entropy(observed).low) / observed.largest * BINS / 2
    best = plain_divergence(magnitudes, round((limit - 128) / 4) * 4 + 128)
    for cut in (128, 196, 256, 384, 512, 768, 1024):
        assert best <= plain_divergence(magnitudes, cut) + 1e-9


def plain_divergence(counts: Doubles, cut: int) -> float:
    """As the slides of Migacz 2017 tell it, bin by bin."""
    reference = counts[:cut].copy()
    reference[-1] += counts[cut:].sum()
    candidate = np.zeros(cut)
    level = np.arange(cut) * 128 // cut
    for each in range(128):
        filled = (level == each) & (counts[:cut] > 0)
        candidate[filled] = counts[:cut][level == each].sum() / max(filled.sum(), 1)
    p, q = reference / reference.sum(), candidate / candidate.sum()
    return float(sum(one * np.log(one / (other or 1e-12)) for one, other in zip(p, q, strict=True) if one > 0))


def test_the_zeros_of_relu_do_not_change_the_cut() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(50_000), 0).astype(np.float32)
    padded = np.concatenate([values, np.zeros(500_000, np.float32)])
    assert entropy(seen(padded)).high == pytest.approx(entropy(seen(values)).high, rel=0.02)


def test_a_table_reads_back_as_it_was_written() -> None:
    table = Table("entropy", {"b": Range(-1.5, 0.25), "a": Range(0.0, 1e-9)}, 128)
    assert decode(encode(table)) == table
    assert encode(decode(encode(table))) == encode(table)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(CompileError, match="no calibration table"):
        decode(b'{"method": "median", "ranges": {}, "rows": 1}')
