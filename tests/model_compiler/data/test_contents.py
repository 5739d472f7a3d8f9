"""Parts told apart by their rows: what they share beyond chance, and numbers that are none."""

from __future__ import annotations

import numpy as np
import pytest

from model_compiler.data.contents import are_apart, marks_of
from model_compiler.data.samples import Arrays, Floats
from model_compiler.errors import CompileError


def part(inputs: Floats) -> list[bytes]:
    return marks_of(Arrays(np.asarray(inputs, np.float32), np.zeros(len(inputs))), "some")


def drawn(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def test_rows_that_are_elsewhere_too_are_found_wherever_they_stand() -> None:
    some, others = drawn(200, 0), drawn(1000, 1)
    assert are_apart(part(some), part(others))
    assert not are_apart(part(some), part(np.concatenate([others, some[::-1]])))
    assert not are_apart(part(np.concatenate([others, some])), part(some))
    assert not are_apart(part(some), part(np.concatenate([others, some[:20]])))


def test_a_few_equal_rows_and_empty_parts_are_nothing() -> None:
    some = drawn(200, 0)
    assert are_apart(part(some), part(np.concatenate([drawn(200, 1), some[:5]])))
    assert are_apart(part(some), part(some[:0]))


def test_what_is_equal_by_chance_is_no_sharing() -> None:
    still = np.zeros((80, 3), np.float32)
    scenes = [np.concatenate([drawn(120, seed), still]) for seed in (0, 1)]
    assert are_apart(part(scenes[0]), part(scenes[1]))
    assert not are_apart(part(np.concatenate([scenes[0], still[:0]])), part(drawn(120, 0)))
    rng = np.random.default_rng(0)
    for values in (2, 5, 20):
        assert are_apart(*(part(rng.integers(0, values, (500, 3)).astype(np.float32)) for _ in range(2)))


def test_a_row_that_is_not_finite_is_told_wherever_it_is() -> None:
    wide = np.zeros((9, 1 << 20), np.float32)
    wide[8, 5] = np.nan
    with pytest.raises(CompileError, match=r"^Row 8 of some holds NaN or infinity"):
        part(wide)
