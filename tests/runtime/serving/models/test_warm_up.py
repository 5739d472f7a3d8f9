"""The first runs of a model: what they measure, within which time, and what becomes of sizes that fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import FoothillError
from runtime.serving.engines.tensors import Array
from runtime.serving.models.golden import open_tested
from runtime.serving.models.loaded import LoadedModel
from runtime.serving.models.warm_up import warm_up
from tests.runtime.serving.bundle_factory import TARGET, make_classifier
from tests.runtime.serving.conftest import Load


class Timed:
    """An engine that takes as long as its curve says, on a clock of its own; it fails above `most` rows."""

    provider = "timed"
    concurrent = False

    def __init__(self, *, base_s: float, row_s: float, most: int = 1000) -> None:
        self.now_s = 0.0
        self.sizes: list[int] = []
        self._base_s, self._row_s, self._most = base_s, row_s, most

    def clock(self) -> float:
        return self.now_s

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(inputs["image"])
        self.sizes.append(rows)
        if rows > self._most:
            raise FoothillError("internal", "no memory for so many rows")
        self.now_s += self._base_s + self._row_s * rows
        return {"logits": np.zeros((rows, 10), np.float32)}

    def close(self) -> None:
        pass


def warmed(model: LoadedModel, engine: Timed) -> LoadedModel:
    model.close()
    model.engine = engine
    warm_up(model, clock=engine.clock)
    return model


def test_it_measures_every_size_where_batching_pays(load: Load) -> None:
    engine = Timed(base_s=0.004, row_s=0.0005)
    times = warmed(load(), engine).times
    assert set(engine.sizes) == {1, 2, 4, 8}
    assert [times.engine_s(rows) for rows in (1, 8)] == pytest.approx([0.0045, 0.008])
    assert times.best(8) == 8


def test_it_stops_where_batching_gains_nothing(load: Load) -> None:
    engine = Timed(base_s=0.0, row_s=0.005)
    times = warmed(load(), engine).times
    assert set(engine.sizes) == {1, 2, 4}
    assert times.best(8) == 1


def test_a_slow_model_is_measured_within_its_budget(load: Load) -> None:
    engine = Timed(base_s=0.0, row_s=0.7)
    assert warmed(load(), engine).times.engine_s(1) == pytest.approx(0.7)
    assert engine.sizes == [1, 1]


def test_a_size_that_fails_is_told_and_left_out(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    times = warmed(load(), Timed(base_s=0.004, row_s=0.0, most=2)).times
    assert "no run of 4 rows in its warm-up: no memory" in caplog.text
    assert times.engine_s(8) == pytest.approx(4 * 0.004)


def test_a_tested_bundle_is_warm(tmp_path: Path) -> None:
    digest = make_classifier(tmp_path)
    loaded = open_tested(tmp_path, digest, target=TARGET, threads=1)
    assert loaded.times.known
    assert 0 < loaded.times.engine_s(1) < 1
    loaded.close()
