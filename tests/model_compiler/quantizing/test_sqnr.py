"""Decibels of what rounding leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compiler.quantizing.sqnr import CEILING_DB, Noise, decibels, sqnr_db
from tests.model_compiler.quantizing.chains import normal


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_ten_times_the_signal_is_ten_decibels_more(signal: float, noise: float) -> None:
    assert decibels(10 * signal, noise) == pytest.approx(decibels(signal, noise) + 10)


def test_equal_tensors_reach_the_ceiling_and_nothing_but_noise_the_floor() -> None:
    values = normal(4, 3, seed=0)
    assert sqnr_db(values, values) == CEILING_DB
    assert sqnr_db(np.zeros((4, 3)), values) == -CEILING_DB


def test_eight_bits_of_a_uniform_signal_leave_about_six_decibels_a_bit() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 100_000)
    assert sqnr_db(values, np.rint(values * 127) / 127) == pytest.approx(6.02 * 8, abs=1.0)


def test_a_loud_channel_hides_lost_ones_from_the_total_alone() -> None:
    exact = normal(64, 8, 4, 4, seed=0)
    exact[:, 0] *= 1000
    rounded = np.rint(exact / 16) * 16
    noise = Noise()
    for start in (0, 32):
        noise.add(exact[start : start + 32], rounded[start : start + 32])
    assert noise.total_db > 30
    assert noise.channel_db < 10
    assert noise.total_db == pytest.approx(sqnr_db(exact, rounded))


def test_channels_without_a_signal_do_not_count() -> None:
    exact = normal(8, 3, seed=0)
    exact[:, 1] = 0
    noise = Noise()
    noise.add(exact, exact + np.float32(0.01) * normal(8, 3, seed=1))
    assert noise.channel_db == pytest.approx(40, abs=5)
